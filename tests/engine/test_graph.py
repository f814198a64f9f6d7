import torch

from engine.graph import WARM_UP_CALLS, Graphed


def at_once(function):
    function()


def test_function_is_warmed_up_then_recorded_once_for_each_shape_and_setting():
    total, recorded = torch.zeros(()), []

    def add(values, times):
        total.add_(times * values.sum())

    def record(function):
        recorded.append(1)
        return function

    graphed = Graphed(add, warm_up=at_once, record=record)
    expected = 0.0
    for step in range(8):
        for size, times in ((2, 1), (3, 1), (3, 2)):
            values = torch.full((size,), float(step))
            graphed(values, times=times)
            expected += times * size * step
    assert total.item() == expected
    assert len(recorded) == 3


def test_inputs_are_copied_so_that_what_was_recorded_sees_new_values():
    seen, replays = [], []

    def remember(values):
        seen.append(values)

    def record(function):
        function()
        return lambda: replays.append(seen[-1].clone())

    graphed = Graphed(remember, warm_up=at_once, record=record)
    for step in range(WARM_UP_CALLS + 3):
        graphed(torch.tensor([float(step)]))
    assert [values.item() for values in replays] == [3.0, 4.0, 5.0]


def test_machine_without_graphs_computes_without_them(capsys):
    calls = []

    def refuse(function):
        raise RuntimeError("CUDA graphs are not supported\nmore text")

    graphed = Graphed(lambda values: calls.append(values.item()), warm_up=at_once, record=refuse)
    for step in range(6):
        graphed(torch.tensor(float(step)))
    assert calls == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert capsys.readouterr().err.count("CUDA graphs are not supported") == 1
