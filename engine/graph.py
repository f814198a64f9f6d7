"""A computation on CUDA as one graph: recorded once, then launched as a whole."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

# A graph cannot hold what happens only at first, such as the choice of an algorithm or an optimizer's state.
WARM_UP_CALLS = 3


def on_side_stream(function: Callable[[], None]) -> None:
    """Call a function on a stream of its own, which a computation needs before it can be recorded."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        function()
    current.wait_stream(stream)


def record(function: Callable[[], None]) -> Callable[[], None]:
    """Record what a function does on the current CUDA device; returns a function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class Graphed:
    """A function of tensors that costs a single launch on CUDA, after a few warm-up calls.

    The function computes on the device alone: it reads no value back, and its control flow depends on no
    value. It returns nothing, but writes its results to tensors that exist before. Each combination of shapes
    and settings has a graph of its own.

    Args:
        function: called as `function(*tensors, **settings)`; settings are plain values.
        warm_up, record: how it is called at first, and how it is recorded.
    """

    def __init__(self, function: Callable[..., None], warm_up=on_side_stream, record=record):
        self.function, self.warm_up, self.record = function, warm_up, record
        self._calls: dict[tuple, int] = {}
        self._graphs: dict[tuple, tuple[list[Tensor], Callable[[], None]]] = {}
        self._refused = False

    def __call__(self, *tensors: Tensor, **settings) -> None:
        key = (*((tensor.shape, tensor.dtype) for tensor in tensors), *sorted(settings.items()))
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls <= WARM_UP_CALLS:
            self.warm_up(lambda: self.function(*tensors, **settings))
            return
        if key not in self._graphs and not self._refused:
            self._record(key, [tensor.clone() for tensor in tensors], settings)
        if self._refused:
            self.function(*tensors, **settings)
            return
        inputs, replay = self._graphs[key]
        for recorded, tensor in zip(inputs, tensors, strict=True):
            recorded.copy_(tensor, non_blocking=True)
        replay()

    def _record(self, key: tuple, inputs: list[Tensor], settings: dict) -> None:
        try:
            self._graphs[key] = inputs, self.record(lambda: self.function(*inputs, **settings))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a driver or a library without graphs: slower, with the same result
            self._refused = True
            reason = str(error).strip().split("\n")[0]
            print(f"no CUDA graph here ({reason}): operations are launched one by one", file=sys.stderr)
