"""A run that was stopped and resumed is the run that was not stopped."""

import csv
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import Trainer
from modules import VAE_Model
from runtime.cli import Stopped
from tests.helpers import (
    ROOT,
    SMALL_RUN,
    assert_succeeds,
    assert_user_error,
    one_thread,
    run_script,
    small_model,
)
from training import checkpoint

EPOCHS = 5
# Both schedules and teacher forcing change within the run, and so do the clips and the learning rate.
FLAGS = [
    *SMALL_RUN, f"--num_epoch={EPOCHS}", "--kl_anneal_cycle=3", "--tfr=0.9", "--tfr_sde=1", "--lr_warmup=3",
    "--per_save=1", "--augment=turn,mirror",
]  # fmt: skip


def command(dataset, folder, *flags):
    return ["--DR", str(dataset), "--save_root", str(folder), *flags]


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


@pytest.fixture(
    scope="module", params=["--arch=lab --precision=fp32", "--arch=unet --precision=bf16 --optim=Muon"]
)
def whole_run(request, dataset, tmp_path_factory):
    folder, flags = tmp_path_factory.mktemp("whole"), request.param.split()
    Trainer.main(command(dataset, folder, *FLAGS, *flags))
    return folder, flags


@pytest.mark.parametrize("last", range(EPOCHS - 1))
def test_resumed_run_ends_with_the_very_state(whole_run, dataset, tmp_path, monkeypatch, last):
    whole, flags = whole_run
    save = Trainer.Run.save

    def stop_after(run, record, final):
        save(run, record, final)
        if record["epoch"] == last:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Trainer.Run, "save", stop_after)
    with pytest.raises(Stopped):
        Trainer.main(command(dataset, tmp_path, *FLAGS, *flags))
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == last
    Trainer.main(command(dataset, tmp_path, "--resume", "--device=cpu"))
    for name in ("last.ckpt", "best.ckpt"):
        assert_same(checkpoint.read(tmp_path / name), checkpoint.read(whole / name))
    with (tmp_path / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(EPOCHS)]


def test_ckpt_path_branches_off_into_another_folder(whole_run, dataset, tmp_path):
    whole, _ = whole_run
    Trainer.main(command(dataset, tmp_path, "--ckpt_path", str(whole / "epoch=1.ckpt"), "--device=cpu"))
    assert_same(checkpoint.read(tmp_path / "last.ckpt")["state_dict"],
                checkpoint.read(whole / "last.ckpt")["state_dict"])  # fmt: skip
    assert (tmp_path / "best.ckpt").exists()


@pytest.mark.parametrize(("first", "second"), [("AdamW", "Muon"), ("Muon", "AdamW")])
def test_another_optimizer_starts_without_a_state_and_says_so(dataset, tmp_path, capsys, first, second):
    Trainer.main(command(dataset, tmp_path / "run", *SMALL_RUN, f"--optim={first}"))
    branch = ["--ckpt_path", str(tmp_path / "run" / "last.ckpt"), f"--optim={second}", "--num_epoch=2"]
    Trainer.main(command(dataset, tmp_path / "branch", *branch, "--device=cpu"))
    assert (
        f"last.ckpt: trained with --optim {first}; {second} starts without a state" in capsys.readouterr().out
    )
    assert checkpoint.read(tmp_path / "branch" / "last.ckpt")["last_epoch"] == 1


def test_resume_goes_on_to_more_epochs_and_a_finished_run_has_nothing_to_do(dataset, tmp_path, capsys):
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN))
    Trainer.main(command(dataset, tmp_path, "--resume", "--num_epoch=2", "--device=cpu"))
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 1
    capsys.readouterr()
    Trainer.main(command(dataset, tmp_path, "--resume", "--device=cpu"))
    assert "2 epochs are done already" in capsys.readouterr().out


def test_lab_checkpoint_is_continued_after_its_last_epoch(dataset, tmp_path, capsys):
    weights = VAE_Model(small_model()).state_dict()
    content = {"state_dict": weights, "optimizer": weights, "lr": 1e-05, "tfr": 0.0, "last_epoch": 1}
    torch.save(content, tmp_path / "lab.ckpt")
    flags = [*SMALL_RUN, "--ckpt_path", str(tmp_path / "lab.ckpt")]
    Trainer.main(command(dataset, tmp_path / "done", *flags, "--num_epoch=2"))
    assert "2 epochs are done already" in capsys.readouterr().out
    Trainer.main(command(dataset, tmp_path / "more", *flags, "--num_epoch=3"))
    assert "the optimizer starts without its state" in capsys.readouterr().out
    assert checkpoint.read(tmp_path / "more" / "last.ckpt")["last_epoch"] == 2


def test_new_run_does_not_overwrite_an_old_one(finished_run, dataset):
    folder, _ = finished_run
    before = (folder / "last.ckpt").read_bytes()
    for flags in ([], ["--ckpt_path", folder / "epoch=0.ckpt"]):
        done = run_script("Trainer.py", *command(dataset, folder, *SMALL_RUN, *flags))
        assert_user_error(done, str(folder), "--resume", "--overwrite")
    assert (folder / "last.ckpt").read_bytes() == before


def test_overwrite_starts_again_but_not_before_the_data_was_read(dataset, tmp_path):
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN, "--num_epoch=2"))
    done = run_script("Trainer.py", *command(tmp_path / "nowhere", tmp_path, *SMALL_RUN, "--overwrite"))
    assert_user_error(done, "nowhere")
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 1
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN, "--overwrite"))
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 0
    assert not (tmp_path / "epoch=1.ckpt").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_with_a_line_that_says_how_to_resume(dataset, tmp_path, signum):
    tmp_path = tmp_path / "a run"
    flags = command(dataset, tmp_path, *SMALL_RUN, "--num_epoch=100000", "--per_save=1")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "Trainer.py"), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread(),
    )  # fmt: skip
    while not (tmp_path / "epoch=1.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "Traceback" not in errors
    last = checkpoint.read(tmp_path / "last.ckpt")["last_epoch"]
    assert f"epoch {last} is the last finished one" in errors
    resume = errors.split("continue with: python ")[1].split("\n")[0]
    assert_succeeds(run_script(*shlex.split(resume), "--num_epoch", last + 2, "--device=cpu"))
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == last + 1


def catches_sigterm(process):
    """Whether a process has a handler for SIGTERM by now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc when to send the signal")
@pytest.mark.parametrize("moment", ["torch is loading", "the first epoch has begun"])
def test_signal_before_an_epoch_is_finished_ends_without_traceback(dataset, tmp_path, moment):
    flags = command(dataset, tmp_path, *SMALL_RUN, "--num_epoch=100000")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "Trainer.py"), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread(),
    )  # fmt: skip
    while not (
        catches_sigterm(process) if moment == "torch is loading" else (tmp_path / "args.json").exists()
    ):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors and "stopped" in errors


def best_as_printed(output):
    """PSNR and epoch of the line that ends a run."""
    psnr, epoch = re.search(r"best: ([\d.]+) dB in epoch (\d+)", output).groups()
    return float(psnr), int(epoch)


def test_best_of_a_branched_run_is_what_its_best_ckpt_holds(dataset, tmp_path, capsys):
    """The parent's best epoch is before the branch point, and does not count."""
    parent = tmp_path / "parent"
    Trainer.main(command(dataset, parent, *SMALL_RUN, "--num_epoch=3", "--per_save=1", "--lr=0.01"))
    start = checkpoint.read(parent / "epoch=1.ckpt")
    start["history"]["rows"][0]["val_psnr"] = 99.0
    checkpoint.write(tmp_path / "start.ckpt", start)
    capsys.readouterr()
    branch = tmp_path / "branch"
    Trainer.main(command(dataset, branch, "--ckpt_path", str(tmp_path / "start.ckpt"), "--device=cpu"))
    psnr, epoch = best_as_printed(capsys.readouterr().out)
    best = checkpoint.read(branch / "best.ckpt")
    assert epoch == best["last_epoch"] >= 1
    assert psnr == pytest.approx(best["history"]["rows"][epoch]["val_psnr"], abs=6e-4)


def test_branch_from_an_epoch_without_validation_takes_no_other_epoch_s_psnr(dataset, tmp_path, capsys):
    parent, branch = tmp_path / "parent", tmp_path / "branch"
    flags = ["--num_epoch=4", "--per_save=1", "--per_val=3", "--lr=0.01"]
    Trainer.main(command(dataset, parent, *SMALL_RUN, *flags))
    start = checkpoint.read(parent / "epoch=2.ckpt")
    assert start["history"]["rows"][2]["val_psnr"] is None
    start["history"]["rows"][0]["val_psnr"] = 99.0
    checkpoint.write(tmp_path / "start.ckpt", start)
    capsys.readouterr()
    Trainer.main(command(dataset, branch, "--ckpt_path", str(tmp_path / "start.ckpt"), "--device=cpu"))
    psnr, epoch = best_as_printed(capsys.readouterr().out)
    assert epoch == checkpoint.read(branch / "best.ckpt")["last_epoch"] == 3 and psnr < 99


def test_branched_run_that_is_stopped_in_its_first_epoch_resumes_with_its_own_flags(
    finished_run, dataset, tmp_path, monkeypatch
):
    def stop(*_):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Trainer.Run, "train_epoch", stop)
    flags = [
        "--ckpt_path",
        str(finished_run[0] / "epoch=0.ckpt"),
        "--device=cpu",
        "--lr=0.0005",
        "--num_epoch=3",
    ]
    with pytest.raises(Stopped):
        Trainer.main(command(dataset, tmp_path, *flags))
    monkeypatch.undo()
    Trainer.main(command(dataset, tmp_path, "--resume", "--device=cpu"))
    last = checkpoint.read(tmp_path / "last.ckpt")
    assert (last["last_epoch"], last["args"]["lr"]) == (2, 0.0005)


def test_overwrite_leaves_nothing_of_the_former_run(dataset, tmp_path):
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN, "--num_epoch=3", "--store_visualization"))
    (tmp_path / "notes.txt").write_text("mine")
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN, "--overwrite"))
    names = {path.name for path in tmp_path.iterdir()}
    assert "notes.txt" in names
    assert (
        not {"epoch=1.ckpt", "epoch=2.ckpt", "val_epoch=1.gif", "val_epoch=2.gif", "val_psnr_epoch=2.png"}
        & names
    )
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_files_in_a_folder_without_a_run_are_left_alone(dataset, tmp_path):
    (tmp_path / "val_notes.png").write_text("mine")
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN))
    assert (tmp_path / "val_notes.png").read_text() == "mine"


def test_checkpoint_is_serialized_once_an_epoch(dataset, tmp_path, monkeypatch):
    calls = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *arguments: (calls.append(1), save(*arguments)))
    Trainer.main(command(dataset, tmp_path, *SMALL_RUN, "--num_epoch=2", "--per_save=1"))
    assert len(calls) == 2
    last, kept = (checkpoint.read(tmp_path / name) for name in ("last.ckpt", "epoch=1.ckpt"))
    assert_same(last, kept)
