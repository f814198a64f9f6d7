"""A GPU that is not there: tensors of the device "cuda" with shapes, but without values.

An operator whose operands lie on different devices fails, as on a real GPU. While a step is "recorded", so
does one with an operand on the CPU, and any read of a value. Not seen are: values, kernels, streams, memory,
random numbers, the fused optimizer, and the backward pass, which needs a driver.
"""

import contextlib
import tempfile

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import runtime.device
import Trainer
from runtime.cuda_graph import Graphed
from tests.helpers import load_libraries, start, wait

READ_VALUE = torch.ops.aten._local_scalar_dense.default
PIN = torch.ops.aten._pin_memory.default


class PretendedGPU(TorchDispatchMode):
    """Sees every operator; `recorded` is the number of recorded functions."""

    def __init__(self):
        super().__init__()
        self.recorded, self._is_recording = 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        if self._is_recording and (devices - {"cuda"} or func is READ_VALUE):
            raise RuntimeError(f"{func} of {sorted(devices)} in a recording")
        if func is READ_VALUE:
            return 0.25 if args[0].is_floating_point() else 1
        if func is PIN:
            return args[0].clone()
        if func.name().startswith("aten::_fused_adam"):
            return None
        return func(*args, **kwargs)

    def record(self, graphed, device, function):
        """Stands for Graphed.record."""
        self.recorded, self._is_recording = self.recorded + 1, True
        try:
            function()
        finally:
            self._is_recording = False
        return lambda: None


@contextlib.contextmanager
def _pretend(patch: pytest.MonkeyPatch):
    """Within the block there is a GPU. Checkpoints are not written, and pixels are 0."""
    gpu, moved = PretendedGPU(), []

    def move(model, device, memory_format=torch.preserve_format):
        # `Module.to` swaps parameters in place; pretended ones are made anew.
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    order = memory_format if parameter.dim() == 4 else torch.preserve_format
                    moved.append(nn.Parameter(parameter.detach().to(device, memory_format=order)))
                    module._parameters[name] = moved[-1]
            for name, buffer in module._buffers.items():
                module._buffers[name] = buffer.to(device)
        return model

    def backward(loss):
        for parameter in moved:
            parameter.grad = torch.zeros_like(parameter)

    for owner, name, value in (
        (Graphed, "record", lambda *arguments: gpu.record(*arguments)),
        (Graphed, "warm_up", lambda _self, _device, function: function()),
        (Graphed, "synchronize", lambda *_: None),
        (runtime.device, "_num_available", lambda: 1),
        (torch.cuda, "set_device", lambda _: None),
        (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
        (torch.cuda, "is_bf16_supported", lambda **_: True),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch, "Generator", lambda _, generator=torch.Generator: generator()),
        (FakeTensor, "numpy", lambda tensor: np.zeros(tensor.shape, str(tensor.dtype).split(".")[1])),
        (nn.Module, "to", move),
        (torch.Tensor, "backward", backward),
        (Trainer.Run, "save", lambda run, record: run.history.add(record)),
    ):
        patch.setattr(owner, name, value)
    with FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False), gpu:
        yield gpu


def pretend(function, *args) -> None:
    """Call `function(gpu, *args)` with a `PretendedGPU`.

    That is in a copy of this process, because torch cannot be copied any more after it has pretended.
    """

    def call():
        with pytest.MonkeyPatch.context() as patch, _pretend(patch) as gpu:
            function(gpu, *args)

    load_libraries()
    with tempfile.TemporaryFile() as output:
        code = wait(start(call, output.fileno(), output.fileno()))
        output.seek(0)
        assert code == 0, output.read().decode(errors="replace")[-4000:]
