import numpy as np
import pytest
import torch

from modules import VAE_Model
from training import options
from training.summary import idle_schedules, run_summary

NEEDED = ["--DR=data", "--save_root=run"]


class Clips:
    """Stands for the training data: 75 steps, as large as is asked for or as `most`."""

    def __init__(self, args, most=1000, backgrounds=None):
        self.args, self.most, self.backgrounds = args, most, backgrounds

    def batches(self, epoch, rank, ranks, length, clips=None):
        return [np.zeros((min(self.most, clips or self.args.batch_size), length))] * 75


def summary_of(*flags, **data):
    args = options.trainer_args([*NEEDED, *flags])
    return run_summary(args, VAE_Model(args), torch.device("cpu"), Clips(args, **data))


def test_summary_says_what_runs_by_default():
    text = summary_of("--precision=bf16")
    for words in (
        "unet, 518,632 parameters, Muon, bf16 on cpu",
        "clips of 3 to 16 frames, 10 to 2 a step, 75 steps an epoch",
        "validation every 5 epochs; results in run",
        "teacher forcing 1 to 0 until 20%",
        "KL Cyclical, 4 cycles until 20%, then beta 1 on the ELBO's scale",
        "z = 0 in 50% of clips",
        "--recipe lab",
    ):
        assert words in text
    assert len(text.split("\n")) == 2


def test_summary_of_the_lab_recipe_and_of_a_line_of_the_course():
    text = summary_of("--recipe=lab")
    for words in (
        "lab, 1,585,620 parameters, Adam, fp32",
        "clips of 16 frames, 2 a step",
        "every epoch",
        "teacher forcing 1, from epoch 10 on to 0 until the last",
        "cycle of 10 epochs, slope 1",
    ):
        assert words in text
    assert "--recipe" not in text and "z = 0" not in text
    text = summary_of("--recipe=lab", "--fast_train", "--batch_size=4")
    assert "75 steps an epoch while --fast_train lasts;" in text
    text = summary_of("--tfr=0", "--kl_anneal_type=NoKL_Annealing")
    assert "teacher forcing off; KL not annealed, beta 1 on the ELBO's scale" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_epoch=8", "--kl_anneal_cycle=10"], ["--kl_anneal_cycle 10", "Cyclical equals Monotonic"]),
        (["--num_epoch=5", "--tfr_sde=5"], ["--tfr_sde 5", "does not decay"]),
        (["--num_epoch=9", "--tfr_sde=5", "--kl_anneal_cycle=5"], []),
        (["--num_epoch=2"], []),
        (["--num_epoch=2", "--tfr=0", "--tfr_sde=5", "--kl_anneal_type=NoKL_Annealing"], []),
    ],
)
def test_schedules_that_would_act_after_the_run_are_named(flags, words):
    lines = idle_schedules(options.trainer_args([*NEEDED, *flags]))
    assert len(lines) == (1 if words else 0)
    assert all(word in lines[0] for word in words)


def test_shots_without_a_background_are_counted():
    backgrounds = np.full((3, 4, 4, 4), 255, np.uint8)
    assert len(summary_of(backgrounds=backgrounds).split("\n")) == 2
    backgrounds[1, ..., 3] = 0
    text = summary_of(backgrounds=backgrounds)
    assert text.split("\n")[2] == "--augment turn,paste: 1 of 3 shots have no steady background"


def test_data_with_fewer_clips_than_a_step_wants_are_named():
    assert "clips of 3 frames: 4 a step instead of 10" in summary_of(most=4)
    assert "clips of 16 frames: 1 a step instead of 2" in summary_of(most=1)


def test_what_a_long_budget_decides_stands_in_the_first_line():
    first = summary_of("--max_minutes=60").split("\n")[0]
    assert "--D_out_dim 96" in first and "--augment paste,tilt" in first
    assert "--D_out_dim" not in summary_of("--max_minutes=60", "--D_out_dim=64").split("\n")[0]
    assert len(summary_of("--max_minutes=5").split("\n")) == 2
