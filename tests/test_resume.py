"""A run that was stopped and resumed is the run that was not stopped."""

import csv
import re
import signal

import pytest
import torch

import Trainer
from modules import VAE_Model
from runtime.cli import Stopped
from tests.helpers import SMALL_RUN, SMALL_UNET, small_model
from training import checkpoint

# All schedules change within the runs.
LAB = [
    *SMALL_RUN, "--num_epoch=4", "--kl_anneal_cycle=3", "--tfr=0.9", "--tfr_sde=1", "--lr_warmup=3",
    "--augment=affine", "--clips=shuffled", "--z_dropout=0.3",
]  # fmt: skip
DEFAULT = [
    *SMALL_UNET, "--num_epoch=12", "--batch_size=1", "--start_vi_len=2", "--train_vi_len=5",
    "--device=cpu",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_images")


def run(dataset, folder, *flags):
    """Run Trainer's main in this process; returns the last checkpoint."""
    Trainer.main(["--DR", str(dataset), "--save_root", str(folder), *flags])
    return checkpoint.read(folder / "last.ckpt")


def assert_same(one, other, where=""):
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"seconds", "clips_per_second", "args"}:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{i}")
    else:
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same, where


@pytest.mark.parametrize(
    ("flags", "epochs_of_two_kinds"),
    [
        ([*LAB, "--arch=lab"], set()),
        ([*LAB, "--arch=unet", "--precision=bf16", "--optim=Muon"], set()),
        (DEFAULT, {0, 1, 2, 7, 10}),  # in teacher forcing, then in clip length
    ],
)
def test_resumed_or_branched_run_ends_with_the_very_state(
    dataset, tmp_path, monkeypatch, flags, epochs_of_two_kinds
):
    whole = tmp_path / "whole"
    flags = [*flags, "--per_save=1"]
    expected = run(dataset, whole, *flags)
    rows = expected["history"]["rows"]
    assert epochs_of_two_kinds == {
        row["epoch"]
        for row in rows
        if 0 < row["teacher_forcing"] < 1 or row["clip_length_min"] < row["clip_length_max"]
    }
    save = Trainer.Run.save

    def stop_after_epoch_1(self, record):
        save(self, record)
        if record["epoch"] == 1:
            raise Stopped(signal.SIGTERM)

    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer.Run, "save", stop_after_epoch_1)
        with pytest.raises(Stopped):
            run(dataset, stopped, *flags)
    assert checkpoint.read(stopped / "last.ckpt")["last_epoch"] == 1
    assert_same(run(dataset, stopped, "--resume", "--device=cpu"), expected)
    assert_same(checkpoint.read(stopped / "best.ckpt"), checkpoint.read(whole / "best.ckpt"))
    with (stopped / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(row["epoch"]) for row in rows]
    branch = run(dataset, tmp_path / "branch", "--ckpt_path", str(whole / "epoch=1.ckpt"), "--device=cpu")
    assert_same(branch["state_dict"], expected["state_dict"])


def test_resume_continues_to_more_epochs_and_a_finished_run_has_nothing_to_do(dataset, tmp_path, capsys):
    run(dataset, tmp_path, *SMALL_RUN)
    resume = ["--save_root", str(tmp_path), "--resume", "--device=cpu"]  # with the dataset of the run
    Trainer.main([*resume, "--num_epoch=2"])
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 1
    capsys.readouterr()
    Trainer.main(resume)
    assert "already trained for 2 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), [("AdamW", "Muon"), ("Muon", "AdamW")])
def test_another_optimizer_starts_without_a_state_and_says_so(dataset, tmp_path, capsys, first, second):
    run(dataset, tmp_path / "run", *SMALL_RUN, f"--optim={first}")
    branch = ["--ckpt_path", str(tmp_path / "run" / "last.ckpt"), f"--optim={second}", "--num_epoch=2"]
    assert run(dataset, tmp_path / "branch", *branch, "--device=cpu")["last_epoch"] == 1
    words = f"last.ckpt: trained with --optim {first}; starting {second} with fresh state"
    assert words in capsys.readouterr().out


def test_another_seed_in_a_branch_gives_other_weights(finished_run, dataset, tmp_path):
    start = ["--ckpt_path", str(finished_run[0] / "epoch=0.ckpt"), "--device=cpu", "--num_epoch=2"]
    weights = [run(dataset, tmp_path / str(seed), *start, f"--seed={seed}")["state_dict"] for seed in (0, 1)]
    assert_same(weights[0], checkpoint.read(finished_run[0] / "last.ckpt")["state_dict"])
    assert not torch.equal(*(state["Generator.7.weight"] for state in weights))


def test_checkpoint_of_the_course_is_continued_after_its_last_epoch(dataset, tmp_path, capsys):
    weights = VAE_Model(small_model()).state_dict()
    content = {"state_dict": weights, "optimizer": weights, "lr": 1e-05, "tfr": 0.0, "last_epoch": 1}
    torch.save(content, tmp_path / "lab.ckpt")
    flags = [*SMALL_RUN, "--ckpt_path", str(tmp_path / "lab.ckpt")]
    Trainer.main(["--DR", str(dataset), "--save_root", str(tmp_path / "done"), *flags, "--num_epoch=2"])
    assert "already trained for 2 epochs" in capsys.readouterr().out
    assert run(dataset, tmp_path / "more", *flags, "--num_epoch=3")["last_epoch"] == 2
    assert "starting with a fresh optimizer state" in capsys.readouterr().out


@pytest.mark.parametrize(("start", "per_val"), [(1, 1), (2, 3)])
def test_best_epoch_of_a_branch_is_its_own(dataset, tmp_path, capsys, start, per_val):
    """Epochs before the branch point do not count; epoch 2 has no validation if every third has one."""
    flags = ["--num_epoch=4", "--per_save=1", f"--per_val={per_val}", "--lr=0.01"]
    run(dataset, tmp_path / "parent", *SMALL_RUN, *flags)
    content = checkpoint.read(tmp_path / "parent" / f"epoch={start}.ckpt")
    content["history"]["rows"][0]["val_psnr"] = 99.0
    checkpoint.write(tmp_path / "start.ckpt", content)
    capsys.readouterr()
    branch = tmp_path / "branch"
    run(dataset, branch, "--ckpt_path", str(tmp_path / "start.ckpt"), "--device=cpu")
    psnr, epoch = re.search(r"best: ([\d.]+) dB in epoch (\d+)", capsys.readouterr().out).groups()
    best = checkpoint.read(branch / "best.ckpt")
    assert int(epoch) == best["last_epoch"] >= start + (per_val > 1)
    assert float(psnr) == pytest.approx(best["history"]["rows"][int(epoch)]["val_psnr"], abs=6e-4)
    assert float(psnr) < 99


def test_run_that_is_stopped_in_its_first_epoch_starts_again_with_the_same_command(
    dataset, tmp_path, monkeypatch
):
    def stop(*_):
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer.Run, "train_epoch", stop)
        with pytest.raises(Stopped):
            run(dataset, tmp_path, *SMALL_RUN)
    assert run(dataset, tmp_path, *SMALL_RUN)["last_epoch"] == 0


def test_branch_that_is_stopped_in_its_first_epoch_resumes_with_its_own_flags(
    finished_run, dataset, tmp_path, monkeypatch
):
    def stop(*_):
        raise Stopped(signal.SIGTERM)

    start = ["--ckpt_path", str(finished_run[0] / "epoch=0.ckpt"), "--device=cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer.Run, "train_epoch", stop)
        with pytest.raises(Stopped):
            run(dataset, tmp_path, *start, "--lr=0.0005", "--num_epoch=3")
    last = run(dataset, tmp_path, "--resume", "--device=cpu")
    assert (last["last_epoch"], last["args"]["lr"]) == (2, 0.0005)
