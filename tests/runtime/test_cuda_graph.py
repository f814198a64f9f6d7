import pytest
import torch

from runtime.cuda_graph import WARM_UP_CALLS, Graphed
from tests.recorder import OnCPU


def test_function_is_warmed_up_then_recorded_once_for_each_shape_and_setting():
    total, recorder = torch.zeros(()), OnCPU()

    def add(values, times):
        total.add_(times * values.sum())

    graphed = Graphed(add, recorder)
    expected = 0.0
    for step in range(8):
        for size, times in ((2, 1), (3, 1), (3, 2)):
            values = torch.full((size,), float(step))
            graphed(values, times=times)
            expected += times * size * step
    assert total.item() == expected
    assert recorder.recorded == 3


def test_inputs_are_copied_so_that_what_was_recorded_sees_new_values():
    seen, replays = [], []

    def remember(values):
        seen.append(values)

    class Remembering(OnCPU):
        def record(self, function):
            function()
            return lambda: replays.append(seen[-1].clone())

    graphed = Graphed(remember, Remembering())
    for step in range(WARM_UP_CALLS + 3):
        graphed(torch.tensor([float(step)]))
    assert [values.item() for values in replays] == [3.0, 4.0, 5.0]


def test_machine_without_graphs_computes_without_them_and_says_the_first_reason(capsys):
    calls = []

    class Refusing(OnCPU):
        def record(self, function):
            try:
                raise RuntimeError("an operator reads a value\nmore text")
            except RuntimeError:
                self.end()

        def end(self):
            raise RuntimeError("capture_end failed")

    graphed = Graphed(lambda values: calls.append(values.item()), Refusing())
    for step in range(6):
        graphed(torch.tensor(float(step)))
    assert calls == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    errors = capsys.readouterr().err
    assert (
        errors.count("no CUDA graph here (an operator reads a value): ") == 1 and "capture_end" not in errors
    )


def test_memory_that_runs_out_in_a_recording_ends_the_run():
    class Full(OnCPU):
        def record(self, function):
            raise torch.OutOfMemoryError("CUDA out of memory")

    graphed = Graphed(lambda values: None, Full())
    for _ in range(WARM_UP_CALLS):
        graphed(torch.zeros(1))
    with pytest.raises(torch.OutOfMemoryError):
        graphed(torch.zeros(1))


def test_time_of_warm_up_and_recording_is_known(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("runtime.cuda_graph.time.perf_counter", lambda: float(next(clock)))
    graphed = Graphed(lambda values: None, OnCPU())
    seconds = []
    for _ in range(WARM_UP_CALLS + 3):
        graphed(torch.zeros(1))
        seconds.append(graphed.seconds)
    assert seconds == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
