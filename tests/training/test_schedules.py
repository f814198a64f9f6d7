import math
from itertools import groupby, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dataloader import ClipDataset
from training import configuration, schedules
from training.schedules import Budget, kl_annealing


def flags(*argv, **changes):
    args = configuration.trainer_args(["--DR=.", "--save_root=run", "--reference_frame=clip", *argv])
    return SimpleNamespace(**vars(args) | changes)


def cut_of(args, *shots):
    """The batches of an epoch, for shots of these lengths."""
    dataset = ClipDataset.__new__(ClipDataset)  # without the images
    dataset.args, dataset.numbers = args, []
    for length in shots:
        start = dataset.numbers[-1] + 50 if dataset.numbers else 0
        dataset.numbers.extend(range(start, start + length))
    return lambda *sizes: dataset.batches(0, *sizes)


def epochs_of(args, cut, step_minutes=0.0):
    """The steps of each epoch of a run, as Trainer.py takes them."""
    budget, updates, epochs = Budget(args, cut), 0, []
    while not budget.is_finished(len(epochs)):
        epochs.append([])
        for step in schedules.epoch_steps(args, budget, len(epochs) - 1, updates, cut):
            epochs[-1].append(step)
            updates += 1
            budget.seconds += 60 * step_minutes
    return epochs


def betas(num_epochs, **course_flags):
    annealing = kl_annealing(SimpleNamespace(**course_flags))
    values = []
    for _ in range(num_epochs):
        values.append(annealing.get_beta())
        annealing.update()
    return values


# min(1, ((epoch mod 10) / 10) * 1.5), but 0.01 in epoch 0.
LAB_BETAS = [0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1, 1, 1]
LAB_BETAS = [0.01, *LAB_BETAS, 0, *LAB_BETAS, 0, 0.15]


def test_lab_recipe_has_one_beta_and_one_draw_an_epoch():
    args = flags("--recipe=lab", "--num_epoch=22", "--kl_anneal_ratio=1.5", "--seed=1")
    epochs = epochs_of(args, cut_of(args, 200))
    assert [len(steps) for steps in epochs] == [6] * 22
    values = [{(step.beta, step.tfr, step.teacher_forcing) for step in steps} for steps in epochs]
    beta, tfr, is_forced = zip(*(value for (value,) in values), strict=True)
    assert beta == pytest.approx(LAB_BETAS, abs=1e-12)
    assert tfr == pytest.approx([1] * 10 + [decays / 12 for decays in range(11, -1, -1)], abs=1e-12)
    assert is_forced[:10] == (True,) * 10 and set(is_forced[10:21]) == {True, False} and not is_forced[21]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Cyclical", LAB_BETAS),
        ("Monotonic", [*LAB_BETAS[:10], *[1] * 12]),
        ("None", [1] * 22),
        ("without", [1] * 22),
    ],
)
def test_course_scripts_anneal_with_its_flags_only(kind, expected):
    values = betas(22, kl_anneal_type=kind, kl_anneal_cycle=10, kl_anneal_ratio=1.5)
    assert values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kind", "num_falls"), [("Cyclical", 3), ("Monotonic", 0), ("NoKL_Annealing", 0)])
def test_beta_without_a_cycle_fits_the_run_and_ends_at_1(kind, num_falls):
    values = betas(401, **vars(flags(kl_anneal_type=kind, num_epoch=400)))
    end = int(schedules.KL_END * 400)
    assert set(values[end:]) == {1.0}
    # Fu et al. 2019: beta rises in the first half of a cycle and is 1 in the second.
    assert values[0] == (1 if kind == "NoKL_Annealing" else 0.3) and max(values[:end]) == 1
    assert sum(before > after for before, after in pairwise(values)) == num_falls


def ratios(num_epoch, **changes):
    args = flags(num_epoch=num_epoch, **changes)
    return [schedules.teacher_forcing_ratio(args, epoch, epoch / num_epoch) for epoch in range(num_epoch)]


def test_teacher_forcing_decays_linearly_or_by_its_step_but_not_below_0():
    assert ratios(6, tfr_sde=2) == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0])
    assert ratios(5, tfr=0.5, tfr_sde=1, tfr_d_step=0.2) == pytest.approx([0.5, 0.3, 0.1, 0, 0])
    assert ratios(6, tfr_d_step=0.25) == pytest.approx([0.75, 0.5, 0.25, 0, 0, 0])
    values = ratios(200)
    assert values[0] == 1 and values == sorted(values, reverse=True)
    end = int(schedules.TFR_END * 200)
    assert values[end - 1] > 0 and not any(values[end:])


def test_teacher_forcing_is_drawn_for_each_step_with_its_ratio_from_the_seed():
    draws, again, other = (
        [step.teacher_forcing for steps in epochs_of(args, cut_of(args, 3000)) for step in steps]
        for args in (
            flags("--clips=in_order", seed=seed, tfr=0.3, tfr_sde=9, num_epoch=9) for seed in (0, 0, 1)
        )
    )
    first, second = draws[:100], draws[100:200]  # epochs
    assert draws == again != other and first != second
    assert set(first) == {True, False} and 0.25 < np.mean(draws) < 0.35


def test_clips_grow_in_doublings_to_their_full_length():
    lengths = [schedules.clip_length(flags(start_vi_len=9), percent / 100) for percent in range(101)]
    assert lengths == [9] * lengths.index(16) + [16] * 15  # one doubling, at the end
    lengths = [schedules.clip_length(flags(), percent / 100) for percent in range(101)]
    assert list(dict.fromkeys(lengths)) == [3, 5, 9, 16] and lengths == sorted(lengths)
    assert lengths.index(5) == pytest.approx(100 * schedules.GROWTH[0], abs=1)
    assert lengths.index(16) == pytest.approx(100 * schedules.GROWTH[1], abs=1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_steps_have_about_as_many_frames_at_all_lengths(batch_size):
    args = flags(batch_size=batch_size)
    for length in (3, 5, 9, 16):
        size = schedules.batch_size(args, length)
        assert size % batch_size == 0  # so N ranks share the step of one with N times the batch
        assert abs(size * length - batch_size * 16) <= batch_size * length / 2


def shares_by_length(steps, weight=lambda step: 1):
    weights = {}
    for step in steps:
        weights[step.clip_length] = weights.get(step.clip_length, 0) + weight(step)
    return {length: value / sum(weights.values()) for length, value in weights.items()}


@settings(max_examples=150, deadline=None)
@given(
    shots=st.lists(st.integers(24, 12 * 16), min_size=1, max_size=8),
    batch_size=st.integers(1, 8),
    num_epoch=st.integers(1, 60),
    clips=st.sampled_from(["shuffled", "in_order"]),
)
def test_run_of_any_length_has_whole_cycles_and_a_long_one_every_phase(shots, batch_size, num_epoch, clips):
    args = flags(batch_size=batch_size, num_epoch=num_epoch, clips=clips)
    cut = cut_of(args, *shots)
    assume(len(cut(16, batch_size, 1.0)[0]) == batch_size)  # a step at full length has its clips
    steps = [step for steps in epochs_of(args, cut) for step in steps]
    beta = [step.beta for step in steps]
    falls = [index for index in range(1, len(beta)) if beta[index] < beta[index - 1]]
    cycles = [beta[start:end] for start, end in pairwise([0, *falls, len(beta)])]
    assert len(beta) == 1 or all(max(cycle) == 1 for cycle in cycles)
    assert all(len(cycle) >= schedules.MIN_CYCLE_STEPS for cycle in cycles[:-1])
    assert len(cycles) == 4 if len(steps) >= 100 else len(cycles) <= 4
    if len(steps) >= schedules.MIN_STEPS:
        assert beta[-1] == 1 and (steps[0].tfr, steps[-1].tfr) == (1, 0)
        frames = shares_by_length(steps, lambda step: step.clips.size)
        assert list(frames) == [3, 5, 9, 16] and frames[16] >= 0.1


@pytest.mark.parametrize("num_epoch", [3, 30, 10**6])
def test_plan_has_the_shares_of_the_run(num_epoch):
    args = flags(num_epoch=num_epoch)
    cut = cut_of(args, 3000)
    steps = schedules.planned_steps(args, cut)
    assert len(steps) <= schedules.PLAN_STEPS and (steps[0].tfr, steps[-1].tfr, steps[-1].beta) == (1, 0, 1)
    assert sum(before.beta > after.beta for before, after in pairwise(steps)) == 3
    run = [step for steps in epochs_of(flags(num_epoch=3), cut) for step in steps]
    frames = shares_by_length(run, lambda step: step.clips.size)
    assert shares_by_length(steps) == pytest.approx(frames, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(
    shots=st.lists(st.integers(150, 600), min_size=1, max_size=3),
    batch_size=st.integers(1, 2),
    num_epoch=st.integers(1, 3),
)
def test_epoch_in_which_clips_grow_goes_on_where_it_was(shots, batch_size, num_epoch):
    args = flags(batch_size=batch_size, num_epoch=num_epoch, clips="in_order")
    cut = cut_of(args, *shots)
    for steps in epochs_of(args, cut):
        assert [step.num_left > 1 for step in steps] == [True] * (len(steps) - 1) + [False]
        lengths = [length for length, _ in groupby(step.clip_length for step in steps)]
        left_out = max(
            sum(shots) - sum(batch.size for batch in cut(length, schedules.batch_size(args, length), 1.0))
            for length in lengths
        )
        views = np.bincount(np.concatenate([step.clips.ravel() for step in steps]), minlength=sum(shots))
        num_frames, changes = max(step.clips.size for step in steps), len(lengths) - 1
        assert (views == 0).sum() <= left_out + num_frames * changes
        assert (views - 1).clip(min=0).sum() <= 2 * num_frames * changes


@pytest.mark.parametrize(("recipe", "num_epochs"), [("default", 3), ("lab", 5)])
def test_fast_training_lasts_two_epochs_longer_in_the_course(recipe, num_epochs):
    args = flags(recipe=recipe, fast_train=True, fast_train_epoch=3, fast_partial=0.4)
    fractions = [schedules.clip_fraction(args, epoch) for epoch in range(6)]
    assert fractions == [0.4] * num_epochs + [1.0] * (6 - num_epochs)


def test_learning_rate_schedules_and_warm_up():
    def rates(positions, step=10**6, **changes):
        args = flags(**{"lr": 0.001, "lr_warmup": 0} | changes)
        return [schedules.learning_rate(args, epoch, epoch / 10, step) for epoch in positions]

    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5]
    assert rates(range(8), lr_schedule="step") == pytest.approx(expected)
    cosine = rates([tenth / 10 for tenth in range(101)], lr_schedule="cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert (cosine[0], cosine[50], cosine[-1]) == pytest.approx((1e-3, 5.05e-4, 1e-5))
    warm_up = [rates([0], step, lr_warmup=4)[0] for step in range(6)]
    assert warm_up == pytest.approx([0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001])


def test_budget_counts_epochs_or_minutes_of_training():
    def cut(*sizes):
        return [np.zeros((2, 3))] * 5

    epochs = Budget(flags(num_epoch=4), cut, seconds=1e9)
    assert [epochs.progress(epoch) for epoch in (0, 1, 2.5, 4)] == [0, 0.25, 0.625, 1]
    assert not epochs.is_finished(3) and epochs.is_finished(4)
    assert (epochs.num_steps, epochs.steps_per_epoch, epochs.frames_per_epoch) == (20, 5, 150)
    minutes = Budget(flags(max_minutes=2), cut, seconds=60)
    assert minutes.progress(1000) == 0.5 and not minutes.is_finished(1000) and minutes.num_steps is None
    minutes.seconds = 120
    assert minutes.is_finished(0)


@pytest.mark.parametrize("num_frames", [30, 12000])  # an epoch of one step, and one longer than the run
@pytest.mark.parametrize("share", [0.12, 0.003])
def test_with_minutes_the_schedules_follow_the_time_and_reach_their_ends(num_frames, share):
    """Each step takes a share of the budget."""
    args = flags(max_minutes=2.0)
    epochs = epochs_of(args, cut_of(args, num_frames), step_minutes=2 * share)
    steps = [step for steps in epochs for step in steps]
    assert len(steps) == math.ceil(1 / share) and (len(epochs) == 1) == (num_frames == 12000)
    elapsed = [index * share for index in range(len(steps))]
    ratios = [max(0, 1 - part / schedules.TFR_END) for part in elapsed]
    assert [step.tfr for step in steps] == pytest.approx(ratios, abs=1e-9)
    lengths = [step.clip_length for step in steps]
    assert (lengths[0], lengths[-1]) == (3, 16) and lengths == sorted(lengths)
    assert elapsed[lengths.index(16)] == pytest.approx(schedules.GROWTH[1], abs=share)
