import re

import numpy as np
import pytest
import torch

from modules import VAE_Model
from training import options
from training.summary import idle_schedules, run_summary


class Dataset:
    """75 steps per epoch, with at most `max_batch` clips each."""

    def __init__(self, max_batch=1000):
        self.max_batch = max_batch

    def batches(self, epoch, length, batch_size, fraction, rank=0, ranks=1):
        return [np.zeros((min(self.max_batch, batch_size), length))] * 75


def make_args(flags):
    return options.trainer_args(["--DR=data", "--save_root=run", *flags.split()])


def summary_of(flags="", background=None, max_batch=1000):
    args = make_args(flags)
    return run_summary(args, VAE_Model(args), torch.device("cpu"), Dataset(max_batch), background)


def test_summary_describes_the_default_run():
    recipe, model, schedules = summary_of("--precision=bf16").split("\n")
    assert recipe.startswith("recipe default") and "--recipe lab" in recipe
    assert model.startswith("unet, ") and "Muon, bf16 on cpu" in model
    assert "clips of 3 to 16 frames, 10 to 2 per step, 75 steps per epoch; " in model
    assert "validation every 5 epochs; results in run" in model
    assert "teacher forcing 1 to 0 until 20%; KL Cyclical, 4 cycles until 20%, then beta 1" in schedules
    assert "z = 0 in 50% of clips" in schedules


def test_summary_describes_the_protocol_of_the_course_and_the_flags_that_differ():
    recipe, model, schedules = summary_of("--recipe=lab --batch_size=4 --fast_train").split("\n")
    assert recipe.startswith("recipe lab: --arch lab") and "--batch_size" not in recipe
    assert "clips of 16 frames, 4 per step, 75 steps per epoch during --fast_train; " in model
    assert "teacher forcing 1, from epoch 10 on to 0 until the last" in schedules
    assert "cycle of 10 epochs, slope 1" in schedules and "z = 0" not in schedules


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
    text = summary_of(background=background, max_batch=4)
    assert "--augment affine,copy_paste: 1 of 3 shots have no static background" in text
    assert "clips of 3 frames: only 4 per step available instead of 10" in text
