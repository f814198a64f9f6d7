"""A computation on CUDA as one graph: recorded once, then launched as a whole."""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

# A graph cannot hold what happens only at first, such as the choice of an algorithm or an optimizer's state.
WARM_UP_CALLS = 3


class Recorder:
    """Records graphs on one device, which share their memory, because they never run at the same time.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device):
        self.device, self._pool = device, None

    def warm_up(self, function: Callable[[], None]) -> None:
        """Call a function on a stream of its own, which a computation needs before it can be recorded."""
        with torch.cuda.device(self.device):
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                function()
            current.wait_stream(stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record what a function does; returns a function that replays it."""
        generator = torch.cuda.default_generators[self.device.index]
        state = generator.clone_state()
        with torch.cuda.device(self.device):
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

    def synchronize(self) -> None:
        """Wait for the work of the device."""
        torch.cuda.synchronize(self.device)


class Graphed:
    """A function of tensors that costs a single launch on CUDA, after a few warm-up calls.

    The function computes on the device alone: it reads no value back, and its control flow depends on no
    value. It returns nothing, but writes its results to tensors that exist before. Each combination of shapes
    and settings has a graph of its own.

    Args:
        function: called as `function(*tensors, **settings)`; settings are plain values.
        recorder: a `Recorder`; one for the device of the tensors if not given.

    Attributes:
        seconds: what warm-up calls and recordings took so far.
    """

    def __init__(self, function: Callable[..., None], recorder: Recorder | None = None):
        self.function, self.recorder = function, recorder
        self.seconds = 0.0
        self._calls: dict[tuple, int] = {}
        self._graphs: dict[tuple, tuple[list[Tensor], Callable[[], None]]] = {}
        self._refused = False

    def __call__(self, *tensors: Tensor, **settings) -> None:
        key = (*((tensor.shape, tensor.dtype) for tensor in tensors), *sorted(settings.items()))
        if key in self._graphs:
            inputs, replay = self._graphs[key]
            for recorded, tensor in zip(inputs, tensors, strict=True):
                recorded.copy_(tensor, non_blocking=True)
            replay()
        elif self._refused:
            self.function(*tensors, **settings)
        else:
            self._prepare(key, tensors, settings)

    def _prepare(self, key: tuple, tensors: tuple[Tensor, ...], settings: dict) -> None:
        """A call before there is a graph: it warms up, or records."""
        self.recorder = self.recorder or Recorder(tensors[0].device)
        self.recorder.synchronize()
        began = time.perf_counter()
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls <= WARM_UP_CALLS:
            self.recorder.warm_up(lambda: self.function(*tensors, **settings))
            self.recorder.synchronize()
            self.seconds += time.perf_counter() - began
            return
        self._record(key, [tensor.clone() for tensor in tensors], settings)
        self.seconds += time.perf_counter() - began
        self(*tensors, **settings)

    def _record(self, key: tuple, inputs: list[Tensor], settings: dict) -> None:
        try:
            replay = self.recorder.record(lambda: self.function(*inputs, **settings))
            self._graphs[key] = inputs, replay
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a driver or a library without graphs: slower, with the same result
            self._refused = True
            while error.__context__ is not None:  # the end of the recording has an error of its own
                error = error.__context__
            reason = str(error).strip().split("\n")[0]
            print(f"no CUDA graph here ({reason}): operations are launched one by one", file=sys.stderr)
