"""CUDA graphs: capture a function once, then replay it with a single launch."""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Graphed:
    """Captures a function as a CUDA graph on its first call, and replays it afterwards.

    The function computes on the device only: it reads no value back, and its control flow depends on none. It
    returns nothing, but writes to existing tensors. Each combination of shapes and settings has a graph; they
    share memory, because they never run at the same time.

    Args:
        function: called as `function(*inputs, **settings)`; inputs are tensors or (named) tuples of tensors
            and None, settings are plain values.
        enabled: if False, run the function eagerly.

    Attributes:
        seconds: time of all first calls so far.
    """

    def __init__(self, function: Callable[..., None], enabled: bool = True):
        self.function, self.enabled = function, enabled
        self.seconds = 0.0
        self._graphs: dict[tuple, tuple[list[Tensor], Callable[[], None]]] = {}
        self._pool = None

    def __call__(self, *inputs, **settings) -> None:
        if not self.enabled:
            self.function(*inputs, **settings)
            return
        tensors = _tensors(inputs)
        key = (*((tensor.shape, tensor.dtype) for tensor in tensors), *sorted(settings.items()))
        if key in self._graphs:
            recorded_inputs, replay = self._graphs[key]
            for recorded, tensor in zip(recorded_inputs, tensors, strict=True):
                recorded.copy_(tensor, non_blocking=True)
            replay()
        else:
            self._first_call(key, tensors[0].device, inputs, settings)

    def _first_call(self, key: tuple, device: torch.device, inputs: tuple, settings: dict) -> None:
        """An eager call, which initializes what a recording must not hold; then the recording."""
        self.synchronize(device)
        start = time.perf_counter()
        self.warm_up(device, lambda: self.function(*inputs, **settings))
        clones = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)
        try:
            replay = self.record(device, lambda: self.function(*clones, **settings))
            self._graphs[key] = _tensors(clones), replay
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a driver or a library without graphs: slower, with the same result
            self.enabled = False
            while error.__context__ is not None:  # ending the capture raises another error
                error = error.__context__
            reason = str(error).strip().split("\n")[0]
            print(f"no CUDA graph here ({reason}): running eagerly", file=sys.stderr)
        self.synchronize(device)
        self.seconds += time.perf_counter() - start

    def warm_up(self, device: torch.device, function: Callable[[], None]) -> None:
        """Call a function on a side stream, which a computation needs before it can be recorded."""
        with torch.cuda.device(device):
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                function()
            current.wait_stream(stream)

    def record(self, device: torch.device, function: Callable[[], None]) -> Callable[[], None]:
        """Record a function; returns a function that replays it."""
        generator = torch.cuda.default_generators[device.index]
        state = generator.clone_state()
        with torch.cuda.device(device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool):
                    function()
            except RuntimeError:
                # A failed recording may leave the generator as if it were still recorded.
                generator.graphsafe_set_state(state)
                raise
        return graph.replay

    def synchronize(self, device: torch.device) -> None:
        """Wait for the work of the device."""
        torch.cuda.synchronize(device)


def _tensors(inputs: tuple) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
