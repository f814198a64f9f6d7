from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from runtime.cuda_graph import Graphed
from tests.recorder import OnCPU


class Pair(NamedTuple):
    values: Tensor
    absent: Tensor | None = None


def test_first_call_for_each_shape_and_setting_is_eager_and_recorded():
    total = torch.zeros(())

    def add(pair, factor, times):
        total.add_(times * factor * pair.values.sum())

    graphed = OnCPU(add)
    expected = 0.0
    for step in range(8):
        for size, times in ((2, 1), (3, 1), (3, 2)):
            graphed(Pair(torch.full((size,), float(step))), torch.tensor(2.0), times=times)
            expected += 2 * times * size * step
    assert total.item() == expected
    assert (graphed.recorded, graphed.replayed) == (3, 3 * 7)


def test_inputs_are_copied_into_those_that_were_recorded():
    seen, replays = [], []

    class Remembering(OnCPU):
        def record(self, device, function):
            function()
            return lambda: replays.append(seen[-1].clone())

    graphed = Remembering(seen.append)
    for step in range(4):
        graphed(torch.tensor([float(step)]))
    assert [values.item() for values in replays] == [1.0, 2.0, 3.0]


def test_machine_without_graphs_computes_without_them_and_says_the_first_reason(capsys):
    calls = []

    class Refusing(OnCPU):
        def record(self, device, function):
            try:
                raise RuntimeError("an operator reads a value\nmore text")
            except RuntimeError:
                raise RuntimeError("capture_end failed")  # noqa: B904

    graphed = Refusing(lambda values: calls.append(values.item()))
    for step in range(6):
        graphed(torch.tensor(float(step)))
    assert calls == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    errors = capsys.readouterr().err
    assert errors.count("no CUDA graph here (an operator reads a value): ") == 1
    assert "capture_end" not in errors


def test_memory_that_runs_out_in_a_recording_ends_the_run():
    class Full(OnCPU):
        def record(self, device, function):
            raise torch.OutOfMemoryError("CUDA out of memory")

    graphed = Full(lambda values: None)
    with pytest.raises(torch.OutOfMemoryError):
        graphed(torch.zeros(1))


def test_time_of_first_calls_is_known(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("runtime.cuda_graph.time.perf_counter", lambda: float(next(clock)))
    graphed = OnCPU(lambda values: None)
    seconds = []
    for _ in range(4):
        graphed(torch.zeros(1))
        seconds.append(graphed.seconds)
    assert seconds == [1.0, 1.0, 1.0, 1.0]


def test_disabled_it_is_the_function():
    calls = []
    graphed = Graphed(lambda values, **settings: calls.append((values, settings)), enabled=False)
    for _ in range(3):
        graphed("not a tensor", times=2)
    assert calls == [("not a tensor", {"times": 2})] * 3 and graphed.seconds == 0
