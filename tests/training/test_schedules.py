from itertools import pairwise
from types import SimpleNamespace

import pytest

from training import schedules
from training.schedules import Budget, kl_annealing

FLAGS = {
    "num_epoch": 20, "max_minutes": None, "batch_size": 2, "start_vi_len": 3, "train_vi_len": 16, "seed": 0,
    "tfr": 1.0, "tfr_sde": None, "tfr_d_step": None, "recipe": "default", "fast_train": False,
    "kl_anneal_type": "Cyclical", "kl_anneal_cycle": None, "kl_anneal_ratio": 2.0, "kl_anneal_start": 0.01,
    "lr": 0.001, "lr_warmup": 0, "lr_schedule": "constant",
}  # fmt: skip


def flags(**changes):
    return SimpleNamespace(**FLAGS | changes)


def betas(kind, num_epochs, **changes):
    annealing = kl_annealing(flags(kl_anneal_type=kind, **changes))
    values = []
    for _ in range(num_epochs):
        values.append(annealing.get_beta())
        annealing.update()
    return values


def test_beta_with_a_cycle_in_epochs():
    values = betas("Cyclical", 20, kl_anneal_cycle=10, kl_anneal_ratio=1.5)
    assert values[:8] == pytest.approx([0.01, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0])
    assert values[10:] == values[:10]
    values = betas("Monotonic", 14, kl_anneal_cycle=10, kl_anneal_ratio=1.0)
    assert values == pytest.approx([0.01, *(epoch / 10 for epoch in range(1, 10)), 1, 1, 1, 1])


@pytest.mark.parametrize(("kind", "num_falls"), [("Cyclical", 3), ("Monotonic", 0), ("NoKL_Annealing", 0)])
def test_beta_without_a_cycle_fits_the_run_and_ends_at_1(kind, num_falls):
    values = betas(kind, 401, num_epoch=400)
    end = int(schedules.KL_END * 400)
    assert set(values[end:]) == {1.0}
    # Fu et al. 2019: beta rises in the first half of a cycle and is 1 in the second.
    assert values[0] == (1 if kind == "NoKL_Annealing" else 0.01) and max(values[:end]) == 1
    assert sum(before > after for before, after in pairwise(values)) == num_falls


def test_course_scripts_anneal_with_its_flags_only():
    args = SimpleNamespace(kl_anneal_type="Monotonic", kl_anneal_cycle=10, kl_anneal_ratio=1)
    assert kl_annealing(args, current_epoch=4).get_beta() == pytest.approx(0.4)


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


def test_teacher_forcing_is_drawn_with_its_ratio_from_the_seed_and_the_epoch():
    draws, again, other = (
        [schedules.teacher_forcing_draw(flags(seed=seed), epoch, 0.3) for epoch in range(1000)]
        for seed in (0, 0, 1)
    )
    assert draws == again != other
    assert 250 < sum(draws) < 350


def test_clips_grow_in_doublings_to_their_full_length():
    lengths = [schedules.clip_length(flags(), percent / 100) for percent in range(101)]
    assert list(dict.fromkeys(lengths)) == [3, 5, 9, 16] and lengths == sorted(lengths)
    assert lengths.index(5) == pytest.approx(100 * schedules.GROWTH[0], abs=1)
    assert lengths.index(16) == pytest.approx(100 * schedules.GROWTH[1], abs=1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_steps_have_about_as_many_frames_at_all_lengths(batch_size):
    args = flags(batch_size=batch_size)
    for epoch in range(20):
        plan = schedules.epoch_plan(args, Budget(args), epoch)
        assert plan.batch_size % batch_size == 0  # so N ranks share the step of one with N times the batch
        assert abs(plan.batch_size * plan.clip_length - batch_size * 16) <= batch_size * plan.clip_length / 2


@pytest.mark.parametrize(("recipe", "num_epochs"), [("default", 3), ("lab", 5)])
def test_fast_training_lasts_two_epochs_longer_in_the_course(recipe, num_epochs):
    args = flags(recipe=recipe, fast_train=True, fast_train_epoch=3, fast_partial=0.4)
    fractions = [schedules.clip_fraction(args, epoch) for epoch in range(6)]
    assert fractions == [0.4] * num_epochs + [1.0] * (6 - num_epochs)


def test_learning_rate_schedules_and_warm_up():
    def rates(positions, step=10**6, **changes):
        return [schedules.learning_rate(flags(**changes), epoch, epoch / 10, step) for epoch in positions]

    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5]
    assert rates(range(8), lr_schedule="step") == pytest.approx(expected)
    cosine = rates([tenth / 10 for tenth in range(101)], lr_schedule="cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert (cosine[0], cosine[50], cosine[-1]) == pytest.approx((1e-3, 5.05e-4, 1e-5))
    warm_up = [rates([0], step, lr_warmup=4)[0] for step in range(6)]
    assert warm_up == pytest.approx([0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001])


def test_budget_counts_epochs_or_minutes_of_training():
    epochs = Budget(flags(num_epoch=4), seconds=1e9)
    assert [epochs.progress(epoch) for epoch in (0, 1, 2.5, 4)] == [0, 0.25, 0.625, 1]
    assert not epochs.is_finished(3) and epochs.is_finished(4) and epochs.schedule_epoch(3) == 3
    minutes = Budget(flags(num_epoch=10, max_minutes=2), seconds=60)
    assert minutes.progress(1000) == 0.5 and minutes.schedule_epoch(1000) == 5
    assert not minutes.is_finished(1000) and Budget(flags(max_minutes=2), seconds=120).is_finished(0)
