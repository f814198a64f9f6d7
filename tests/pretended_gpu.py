"""The scripts on a GPU that is not there: tensors of the device "cuda" with shapes, but without values.

An operator whose operands lie on different devices fails, as on a real GPU; and while a graph is "recorded",
so does one with an operand on the CPU, and any read of a value. Not seen are: values, kernels, streams, the
lifetime of memory, random numbers, and the backward pass, which needs a driver.
"""

import contextlib
import tempfile
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import runtime.device
import Trainer
import utils
from tests.helpers import start, wait
from training import checkpoint

GPU = torch.device("cuda", 0)
READ_VALUE = torch.ops.aten._local_scalar_dense.default
PIN = torch.ops.aten._pin_memory.default


class PretendedGPU(TorchDispatchMode):
    """Sees every operator.

    Attributes:
        recorded: number of graphs.
        operators: that ran on the GPU, by name.
        recording: whether a graph is being recorded.
    """

    def __init__(self):
        super().__init__()
        self.recorded, self.operators, self.recording = 0, Counter(), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        if self.recording and (devices - {"cuda"} or func is READ_VALUE):
            raise RuntimeError(f"{func} of {sorted(devices)} in a recording")
        if "cuda" in devices and not func.is_view:
            self.operators[func.name()] += 1
        if func is READ_VALUE:
            return 0.25 if args[0].is_floating_point() else 1
        if func is PIN:
            return args[0].clone()
        if func.name().startswith("aten::_fused_adam"):
            return _check_fused(args)
        return func(*args, **kwargs)

    @contextlib.contextmanager
    def graph(self, graph, pool=None):
        """Stands for torch.cuda.graph."""
        self.recorded, self.recording = self.recorded + 1, True
        try:
            yield
        finally:
            self.recording = False


def _check_fused(lists) -> None:
    """What CUDA's fused Adam wants: all on the GPU, and moments in the memory order of their parameters."""
    parameters, gradients, *moments = lists[:4]
    for tensors in zip(parameters, gradients, *moments, strict=True):
        if any(tensor.device.type != "cuda" or tensor.stride() != tensors[0].stride() for tensor in tensors):
            raise RuntimeError("a fused optimizer with tensors that do not match")


class _Stub:
    """A stream or a graph, which does nothing."""

    def __init__(self, *_, **__):
        pass

    def wait_stream(self, _):
        pass

    def replay(self):
        pass


class _Generator(torch.Generator):
    def __new__(cls, device=None):
        return super().__new__(cls)

    def graphsafe_set_state(self, _):
        pass


def _module_to(model: nn.Module, device, memory_format=torch.preserve_format) -> nn.Module:
    """`Module.to`, which swaps parameters in place; pretended ones are made anew."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                order = memory_format if parameter.dim() == 4 else torch.preserve_format
                moved = nn.Parameter(parameter.detach().to(device, memory_format=order))
                module._parameters[name] = moved
                _PARAMETERS.append(moved)
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer.to(device)
    return model


_PARAMETERS: list[nn.Parameter] = []  # of the models on the GPU


def _backward(loss: torch.Tensor) -> None:
    for parameter in _PARAMETERS:
        parameter.grad = torch.zeros_like(parameter)


@contextlib.contextmanager
def pretended_gpu(patch):
    """Within the block the scripts find one GPU; nothing is saved, and pictures are black.

    torch.cuda.is_available() stays False, because pretended tensors ask it.

    Args:
        patch: a `pytest.MonkeyPatch`.

    Yields:
        the `PretendedGPU`.
    """
    gpu = PretendedGPU()
    _PARAMETERS.clear()
    memory = 2**36
    cuda = {
        "set_device": lambda _: None,
        "synchronize": lambda *_: None,
        "device": lambda _: contextlib.nullcontext(),
        "Stream": _Stub,
        "current_stream": _Stub,
        "stream": lambda _: contextlib.nullcontext(),
        "CUDAGraph": _Stub,
        "graph": gpu.graph,
        "graph_pool_handle": tuple,
        "mem_get_info": lambda *_: (memory, memory),
        "get_device_properties": lambda *_: SimpleNamespace(total_memory=memory),
        "get_device_capability": lambda *_: (9, 0),
        "get_arch_list": list,
        "is_bf16_supported": lambda **_: True,
        "default_generators": [_Generator()],
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }
    for name, value in cuda.items():
        patch.setattr(torch.cuda, name, value)
    for owner, name, value in (
        (runtime.device, "_available", lambda: 1),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (FakeTensor, "__format__", lambda *_: "0"),
        (FakeTensor, "numpy", lambda tensor: np.zeros(tensor.shape, np.float32)),
        (torch, "Generator", _Generator),
        (nn.Module, "to", _module_to),
        (torch.Tensor, "backward", _backward),
        (Trainer, "not_sane", lambda _: None),
        (checkpoint, "write", lambda *_: None),
        (checkpoint, "check_weights", lambda *_: None),
        (checkpoint, "check_optimizer", lambda *_: None),
        (checkpoint, "restore_rng", lambda *_: None),
        (checkpoint.Checkpoints, "complete", lambda _: None),
        (utils, "to_uint8", lambda video: np.zeros((*video.shape[:-3], *video.shape[-2:], 3), np.uint8)),
    ):
        patch.setattr(owner, name, value)
    with FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False), gpu:
        yield gpu


def on_gpu(function) -> None:
    """Call a function with a GPU: with None on a real one, else with a `PretendedGPU`.

    That is in a copy of this process, because torch cannot be copied any more after it has pretended.

    Raises:
        AssertionError: the function has failed in the copy.
    """
    if torch.cuda.is_available():
        function(None)
        return

    def pretend():
        with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch) as gpu:
            function(gpu)

    with tempfile.TemporaryFile() as output:
        code = wait(start(pretend, output.fileno(), output.fileno()))
        output.seek(0)
        assert code == 0, output.read().decode(errors="replace")[-4000:]
