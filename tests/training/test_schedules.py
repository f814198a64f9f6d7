from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedules import (
    GROWTH,
    KL_END,
    TFR_END,
    Budget,
    clip_length,
    epoch_plan,
    fast_training,
    kl_annealing,
    kl_beta,
    learning_rate,
    teacher_forcing_draw,
    teacher_forcing_ratio,
)


def betas(epochs, **flags):
    args = {"kl_anneal_cycle": 10, "kl_anneal_ratio": 1.0, "kl_anneal_start": 0.01} | flags
    annealing = kl_annealing(SimpleNamespace(**args))
    values = []
    for _ in range(epochs):
        values.append(annealing.get_beta())
        annealing.update()
    return values


def test_cyclical_beta_climbs_and_starts_again():
    values = betas(20, kl_anneal_type="Cyclical", kl_anneal_ratio=1.5)
    assert values[:8] == pytest.approx([0.01, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0])
    assert values[10:] == values[:10]


def test_monotonic_beta_climbs_once_and_stays():
    values = betas(14, kl_anneal_type="Monotonic")
    assert values == pytest.approx([0.01, *(e / 10 for e in range(1, 10)), 1, 1, 1, 1])


def test_without_annealing_beta_is_one():
    assert betas(5, kl_anneal_type="NoKL_Annealing") == [1.0] * 5


def test_annealing_goes_on_from_the_epoch_of_a_resumed_run_with_the_lab_s_flags_alone():
    args = SimpleNamespace(kl_anneal_type="Monotonic", kl_anneal_cycle=10, kl_anneal_ratio=1)
    assert kl_annealing(args, current_epoch=4).get_beta() == pytest.approx(0.4)
    assert kl_annealing(args).get_beta() == 0.01


@given(
    kind=st.sampled_from(["Cyclical", "Monotonic", "NoKL_Annealing"]),
    cycle=st.integers(1, 30),
    ratio=st.floats(0, 10),
    start=st.floats(0, 1),
)
def test_beta_is_never_outside_its_start_and_one(kind, cycle, ratio, start):
    flags = {"kl_anneal_cycle": cycle, "kl_anneal_ratio": ratio, "kl_anneal_start": start}
    assert all(start <= beta <= 1 for beta in betas(40, kl_anneal_type=kind, **flags))


def ratios(**flags):
    args = SimpleNamespace(**({"tfr": 1.0, "tfr_d_step": None} | flags))
    return [teacher_forcing_ratio(args, epoch, epoch / args.num_epoch) for epoch in range(args.num_epoch)]


def test_teacher_forcing_falls_evenly_to_zero_in_the_last_epoch():
    assert ratios(tfr_sde=2, num_epoch=6) == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0])


def test_teacher_forcing_falls_by_its_step_and_not_below_zero():
    assert ratios(tfr=0.5, tfr_sde=1, tfr_d_step=0.2, num_epoch=5) == pytest.approx([0.5, 0.3, 0.1, 0, 0])


@given(
    tfr=st.floats(0, 1),
    sde=st.integers(0, 30),
    step=st.none() | st.floats(0, 1),
    epochs=st.integers(1, 30),
)
def test_teacher_forcing_is_a_probability_and_never_rises(tfr, sde, step, epochs):
    values = ratios(tfr=tfr, tfr_sde=sde, tfr_d_step=step, num_epoch=epochs)
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)
    if step is None and sde < epochs:
        assert values[-1] == 0


def test_teacher_forcing_without_a_start_of_decay_falls_with_the_run_to_0_well_before_its_end():
    for epochs in (20, 200):
        values = ratios(tfr_sde=None, num_epoch=epochs)
        assert values[0] == 1 and values == sorted(values, reverse=True)
        assert values[int(TFR_END * epochs) - 1] > 0 and not any(values[int(TFR_END * epochs) :])
    assert TFR_END <= 0.5
    assert ratios(tfr_sde=None, tfr_d_step=0.25, num_epoch=6) == pytest.approx([0.75, 0.5, 0.25, 0, 0, 0])


@pytest.mark.parametrize("kind", ["Cyclical", "Monotonic", "NoKL_Annealing"])
def test_beta_without_a_cycle_fits_the_run_and_ends_at_1(kind):
    flags = {"kl_anneal_type": kind, "kl_anneal_cycle": None, "kl_anneal_ratio": 2.0, "kl_anneal_start": 0.01}
    args = SimpleNamespace(**flags)
    values = [kl_beta(args, epoch, epoch / 400) for epoch in range(401)]
    assert all(beta == 1 for beta in values[int(KL_END * 400) :])
    falls = sum(a > b for a, b in pairwise(values))
    assert falls == {"Cyclical": 3, "Monotonic": 0, "NoKL_Annealing": 0}[kind]
    # Fu et al. 2019: beta rises in the first half of a cycle and is 1 in the second.
    assert values[0] == (1 if kind == "NoKL_Annealing" else 0.01) and max(values[: int(KL_END * 400)]) == 1
    args.num_epoch = 400
    assert kl_annealing(args, 300).get_beta() == 1


def growing(**flags):
    return SimpleNamespace(**{"start_vi_len": 3, "train_vi_len": 16, "batch_size": 2} | flags)


def test_clips_grow_in_doublings_to_the_length_that_the_run_ends_with():
    lengths = [clip_length(growing(), done / 100) for done in range(101)]
    assert list(dict.fromkeys(lengths)) == [3, 5, 9, 16]
    assert lengths == sorted(lengths)
    assert lengths.index(5) == pytest.approx(100 * GROWTH[0], abs=1)
    assert lengths.index(16) == pytest.approx(100 * GROWTH[1], abs=1)


@given(start=st.integers(2, 40), end=st.integers(2, 40), done=st.floats(0, 1))
def test_clip_length_is_between_its_ends(start, end, done):
    args = growing(start_vi_len=start, train_vi_len=end)
    assert min(start, end) <= clip_length(args, done) <= end
    assert clip_length(args, 1.0) == end


def plan(epoch, epochs=20, **flags):
    args = growing(
        num_epoch=epochs, max_minutes=None, seed=0, tfr=1.0, tfr_sde=None, tfr_d_step=None,
        kl_anneal_type="Cyclical", kl_anneal_cycle=None, kl_anneal_ratio=2.0, kl_anneal_start=0.01, **flags,
    )  # fmt: skip
    return epoch_plan(args, Budget(args), epoch)


def test_plan_of_a_run_begins_short_and_forced_and_ends_long_and_free_running():
    first, last = plan(0), plan(19)
    assert (first.clip_length, first.tfr, first.teacher_forcing) == (3, 1.0, True)
    assert (last.clip_length, last.tfr, last.teacher_forcing, last.beta) == (16, 0.0, False, 1.0)


@given(batch=st.integers(1, 32), epoch=st.integers(0, 19))
def test_steps_of_all_lengths_have_about_as_many_frames(batch, epoch):
    now = plan(epoch, batch_size=batch)
    assert now.clips >= batch
    assert now.clips % batch == 0  # so that N processes can share the step of one with N times the batch
    assert abs(now.clips * now.clip_length - batch * 16) <= batch * now.clip_length / 2


@pytest.mark.parametrize(("recipe", "epochs"), [("default", 3), ("lab", 5)])
def test_fast_training_lasts_as_long_as_in_the_course_lab_with_its_recipe(recipe, epochs):
    args = SimpleNamespace(recipe=recipe, fast_train=True, fast_train_epoch=3)
    assert [fast_training(args, epoch) for epoch in range(8)] == [epoch < epochs for epoch in range(8)]
    args.fast_train = False
    assert not fast_training(args, 0)


def test_draw_of_an_epoch_follows_ratio_and_seed():
    args = SimpleNamespace(seed=0)
    draws = [teacher_forcing_draw(args, epoch, 0.3) for epoch in range(1000)]
    assert draws == [teacher_forcing_draw(args, epoch, 0.3) for epoch in range(1000)]
    assert 0.25 < sum(draws) / 1000 < 0.35
    args.seed = 1
    assert draws != [teacher_forcing_draw(args, epoch, 0.3) for epoch in range(1000)]


@pytest.mark.parametrize(("ratio", "drawn"), [(0.0, False), (1.0, True)])
def test_draw_is_certain_at_the_ends(ratio, drawn):
    args = SimpleNamespace(seed=0)
    assert all(teacher_forcing_draw(args, epoch, ratio) is drawn for epoch in range(99))


def rate(epoch, step=10**6, **flags):
    args = {"lr": 0.001, "lr_warmup": 0, "lr_schedule": "constant"} | flags
    return learning_rate(SimpleNamespace(**args), epoch, epoch / 10, step)


def test_learning_rate_of_the_lab_falls_to_a_hundredth_at_epoch_5():
    values = [rate(epoch, lr_schedule="step") for epoch in range(8)]
    assert values == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5])


def test_cosine_falls_from_lr_to_a_hundredth():
    values = [rate(tenth / 10, lr_schedule="cosine") for tenth in range(101)]
    assert values[0] == pytest.approx(1e-3) and values[-1] == pytest.approx(1e-5)
    assert values == sorted(values, reverse=True)


def test_warm_up_is_linear_in_steps_and_never_zero():
    values = [rate(0, step=step, lr_warmup=4) for step in range(6)]
    assert values == pytest.approx([0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001])


def test_budget_in_epochs_counts_epochs_and_in_minutes_training_time():
    epochs = Budget(SimpleNamespace(num_epoch=4, max_minutes=None), seconds=1e9)
    assert [epochs.done(epoch) for epoch in (0, 1, 2.5, 4)] == [0, 0.25, 0.625, 1]
    assert not epochs.spent(3) and epochs.spent(4) and epochs.schedule_epoch(3) == 3
    minutes = Budget(SimpleNamespace(num_epoch=10, max_minutes=2), seconds=60)
    assert minutes.done(1000) == 0.5 and minutes.schedule_epoch(1000) == 5
    minutes.seconds = 119
    assert not minutes.spent(1000) and minutes.schedule_epoch(1000) == 9
    minutes.seconds = 130
    assert minutes.spent(0) and minutes.done(0) == 1
