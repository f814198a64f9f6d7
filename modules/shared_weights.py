"""Convolutions that compute their weight gradient once for all time steps.

Autograd computes one weight gradient per call and sums them. Here the inputs and output gradients of all
calls are concatenated, and one operator computes the sum: equal up to rounding, with far fewer operators.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` whose weight gradient is computed once for all calls within `shared_gradients`."""

    uses: "Uses | None" = None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.uses is None else self.uses(x)


class Uses:
    """All uses of a convolution (with a bias) in a clip."""

    def __init__(self, conv: nn.Conv2d):
        kind = conv.weight.device.type
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else conv.weight.dtype
        self.settings = conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.parameters = _Parameters.apply(self, conv.weight.to(self.dtype), conv.bias.to(self.dtype))

    def __call__(self, x: Tensor) -> Tensor:
        return _Use.apply(self, x.to(self.dtype), *self.parameters)

    def gradient(self, gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple:
        """Gradients of input, weight and bias, where wanted."""
        return torch.ops.aten.convolution_backward(gradient, x, weight, [len(weight)], *self.settings, wanted)


class _Use(Function):
    """One call: computes the input gradient immediately and defers the weight gradient."""

    @staticmethod
    def forward(ctx, uses, x, weight, bias):
        ctx.uses = uses
        ctx.save_for_backward(x, weight)
        return torch.ops.aten.convolution(x, weight, bias, *uses.settings)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        ctx.uses.inputs.append(x)
        ctx.uses.gradients.append(gradient)
        of_input = None
        if ctx.needs_input_grad[1]:
            of_input, _, _ = ctx.uses.gradient(gradient, x, weight, [True, False, False])
        return None, of_input, None, None


class _Parameters(Function):
    """Weight and bias; autograd calls `backward` after that of all calls."""

    @staticmethod
    def forward(ctx, uses, weight, bias):
        ctx.set_materialize_grads(False)
        ctx.uses = uses
        ctx.save_for_backward(weight)
        return weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    def backward(ctx, _weight, _bias):
        uses, (weight,) = ctx.uses, ctx.saved_tensors
        stacked = torch.cat(uses.gradients), torch.cat(uses.inputs)
        uses.gradients.clear()
        uses.inputs.clear()
        _, of_weight, of_bias = uses.gradient(*stacked, weight, [False, True, True])
        return None, of_weight, of_bias


@contextlib.contextmanager
def shared_gradients(*networks: nn.Module) -> Iterator[None]:
    """Within the block, compute each convolution's weight gradient once for all its calls."""
    convolutions = [module for network in networks for module in network.modules() if type(module) is Conv2d]
    if not torch.is_grad_enabled():
        convolutions = []
    all_uses = [Uses(conv) for conv in convolutions]
    try:
        for conv, uses in zip(convolutions, all_uses, strict=True):
            conv.uses = uses
        yield
    finally:
        for conv, uses in zip(convolutions, all_uses, strict=True):
            conv.uses = None
            uses.parameters = None  # their graph refers to the uses: a cycle that would outlive the step
