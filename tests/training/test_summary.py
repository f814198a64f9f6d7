import re

import numpy as np
import pytest
import torch

from modules import VAE_Model
from training import configuration
from training.summary import idle_schedules, run_summary


def make_args(flags):
    required = ["--DR=.", "--save_root=run", "--pose_background=white"]
    return configuration.trainer_args([*required, *flags.split()])


def summary_of(flags="", background=None, num_steps=25, max_batch=1000):
    """The lines for a run with `num_steps` steps per epoch of at most `max_batch` clips."""

    def cut(length, batch_size, fraction):
        return [np.zeros((min(max_batch, batch_size), length))] * num_steps

    args = make_args(flags)
    model = VAE_Model(args)
    text = run_summary(args, model, torch.device("cpu"), cut, background)
    assert all(parameter.grad is None for parameter in model.parameters())
    return text.split("\n")


def test_summary_describes_the_default_run():
    recipe, model, clips, teacher_forcing, kl, poses = summary_of("--precision=bf16 --num_epoch=4")
    assert poses == "poses on white (--pose_background)"
    assert recipe.startswith("recipe default") and "--recipe lab" in recipe
    assert model.startswith("unet, ") and "Muon, bf16 on cpu" in model
    assert "; 4 epochs, 25 steps per epoch; validation every 5 epochs; results in run" in model
    shares = "60 / 13 / 13 / 14 % of the frames"
    assert clips == f"clips of 3, 5, 9, 16 frames for {shares}, 10 / 6 / 4 / 2 per step"
    # The last cycle, of 5 of 100 steps, is 0.3, 0.4, 0.8, 1, 1.
    assert teacher_forcing == "teacher forcing 1 to 0 until 20%, drawn for each step"
    scale = "on the ELBO's scale; z = 0 in 50% of clips"
    assert kl == f"KL Cyclical, 4 cycles, beta 0.3 to 1 until 18%, then 1 {scale}"


def test_summary_describes_the_protocol_of_the_course_and_the_flags_that_differ():
    recipe, model, clips, teacher_forcing, kl, _ = summary_of("--recipe=lab --batch_size=4 --num_epoch=22")
    assert recipe.startswith("recipe lab: --arch lab") and "--batch_size" not in recipe
    assert "; 22 epochs, 25 steps per epoch; " in model
    assert clips == "clips of 16 frames, 4 per step"
    assert teacher_forcing == "teacher forcing 1 to 0 until 95%, drawn for each epoch"
    assert kl == "KL Cyclical, cycles of 10 epochs, beta 0 to 0.9 on the sum over z"
    lines = summary_of("--recipe=lab --tfr=0 --kl_anneal_type=None")
    assert lines[-3:-1] == ["teacher forcing off", "KL not annealed, beta 1 on the sum over z"]


def test_summary_with_minutes_has_shares_of_the_time():
    _, model, clips, teacher_forcing, *_ = summary_of("--max_minutes=90000", num_steps=1)
    assert "; 90000 minutes, 1 step per epoch; " in model
    assert clips == "clips of 3, 5, 9, 16 frames for 60 / 13 / 13 / 14 % of the time, 10 / 6 / 4 / 2 per step"
    assert teacher_forcing == "teacher forcing 1 to 0 until 20%, drawn for each step"


@pytest.mark.parametrize(
    ("flags", "num_steps", "expected"),
    [
        ("--num_epoch=3", 13, "too short: 39 steps, {}; raise --num_epoch"),
        ("--num_epoch=1 --start_vi_len=16", 1, "too short: 1 step, {}; raise --num_epoch"),
        ("--max_minutes=1e-9", 100, "too short: about 0 steps, {}; raise --max_minutes"),
        ("--num_epoch=2", 20, None),
        ("--num_epoch=1 --start_vi_len=16 --tfr=0", 1, None),
        ("--num_epoch=1 --recipe=lab --tfr_sde=0 --kl_anneal_type=without", 1, None),
    ],
)
def test_run_that_is_too_short_for_its_schedules_says_so(flags, num_steps, expected):
    lines = [line for line in summary_of(flags, num_steps=num_steps) if line.startswith("too short")]
    assert lines == ([expected.format("and every phase of the schedules needs 40")] if expected else [])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num_epoch=8 --kl_anneal_cycle=10", "--kl_anneal_cycle 10: .*Cyclical equals Monotonic"),
        ("--num_epoch=5 --tfr_sde=5", "--tfr_sde 5: .*does not decay"),
        ("--num_epoch=9 --tfr_sde=5 --kl_anneal_cycle=5", None),
        ("--num_epoch=2 --tfr=0 --tfr_sde=5 --kl_anneal_type=NoKL_Annealing", None),
    ],
)
def test_schedules_that_a_run_is_too_short_for_are_named(flags, words):
    lines = idle_schedules(make_args(flags))
    assert len(lines) == bool(words) and (not words or re.match(words, lines[0]))


def test_shots_without_a_background_and_small_batches_are_counted():
    background = np.full((3, 4, 4, 4), 255, np.uint8)
    background[1, ..., 3] = 0
    text = "\n".join(summary_of(background=background, max_batch=4))
    assert "--augment affine,copy_paste: 1 of 3 shots have no static background" in text
    assert "clips of 3 frames: only 4 per step available instead of 10" in text
