"""Trainer.py as its users run it: printouts, files, and how a run ends."""

import csv
import itertools
import json
import re
import time

import pytest
from PIL import Image

import Tester
import Trainer
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import LAB_FORMAT_KEYS, SMALL_MODEL, SMALL_RUN, SMALL_UNET, small_model, write_dataset
from training import checkpoint, evaluate
from training.history import STEP_COLUMNS


def train(dataset, folder, *flags):
    """Run Trainer's main in this process; returns the rows of the history."""
    Trainer.main(["--DR", str(dataset), "--save_root", str(folder), "--device=cpu", *flags])
    return rows(folder)


def rows(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def clock(monkeypatch):
    """A step takes an eighth of a second."""
    readings = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings) / 8)


def test_printouts_are_those_of_the_contract(finished_run):
    folder, done = finished_run
    bars = done.stderr.replace("\r", "\n")
    titles = r"\(train \[TeacherForcing: ON, 1\.0\], beta: 0\.01\) Epoch 0, lr:0\.001"
    assert re.search(titles + r": 100%\|.+\| 3/3 \[.*loss=", bars)
    assert re.search(r"\(val\) Epoch 1, lr:[\d.e-]+: 100%\|.+\| 5/5 \[.*loss=", bars)
    assert f"save ckpt to {folder}/epoch=0.ckpt" in done.stdout
    printed = [float(value) for value in re.findall(r"^AVG PSNR: ([\d.]+)$", done.stdout, re.M)]
    assert printed == pytest.approx([float(row["val_psnr"]) for row in rows(folder)])


def test_run_folder_holds_checkpoints_flags_history_plots_and_gif(finished_run):
    folder, _ = finished_run
    names = {path.name for path in folder.iterdir()}
    assert {"last.ckpt", "best.ckpt", "epoch=0.ckpt", "epoch=1.ckpt"} <= names
    for plot in ("losses", "schedules", "val_psnr_by_epoch", "val_psnr_by_frame", "val_psnr_epoch=1"):
        with Image.open(folder / f"{plot}.png") as image:
            assert image.height > 300
    with Image.open(folder / "val_epoch=1.gif") as gif:
        assert gif.n_frames == 6
    flags = json.loads((folder / "args.json").read_text())
    assert flags["F_dim"] == 8 and flags["kl_anneal_type"] == "Cyclical"
    assert [row["epoch"] for row in rows(folder)] == ["0", "1"]
    content = checkpoint.read(folder / "last.ckpt")
    assert set(content) >= LAB_FORMAT_KEYS and content["last_epoch"] == 1
    VAE_Model(small_model()).load_state_dict(content["state_dict"], strict=True)


def test_test_validates_a_checkpoint_and_builds_nothing_for_training(
    finished_run, ckpt, tmp_path, monkeypatch, capsys
):
    for name in ("ClipDataset", "Run", "make_optimizer", "History", "Budget"):
        monkeypatch.setattr(Trainer, name, None)
    Trainer.main(["--save_root", str(tmp_path), "--test", "--ckpt", str(ckpt)])
    output, errors = capsys.readouterr()
    printed = re.findall(r"AVG PSNR: .*", output)
    assert printed == re.findall(r"AVG PSNR: .*", finished_run[1].stdout)[-1:]
    assert f"lr:{checkpoint.read(ckpt)['lr']:.3g}:" in errors
    assert {path.name for path in tmp_path.iterdir()} == {"val_epoch=1.gif", "val_psnr_epoch=1.png"}


@pytest.mark.usefixtures("no_images")
def test_validation_checkpoints_and_images_by_their_flags(dataset, tmp_path, capsys):
    flags = ["--num_epoch=6", "--per_val=3", "--per_save=2", "--store_visualization"]
    history = train(dataset, tmp_path, *SMALL_RUN, *flags)
    assert [row["epoch"] for row in history if row["val_psnr"]] == ["0", "3", "5"]
    assert capsys.readouterr().out.count("AVG PSNR") == 3
    assert checkpoint.read(tmp_path / "best.ckpt")["last_epoch"] in (0, 3, 5)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if "epoch=" in name} == {
        *(f"epoch={epoch}.ckpt" for epoch in (0, 2, 4, 5)),
        *(f"val_{kind}" for epoch in (0, 3, 5) for kind in (f"epoch={epoch}.gif", f"psnr_epoch={epoch}.png")),
    }


@pytest.mark.usefixtures("no_images", "clock")
@pytest.mark.parametrize(
    ("frames", "budget", "num_epochs"), [(104, "--num_epoch=5", 5), (500, "--max_minutes=0.2", 1)]
)
def test_default_run_of_few_epochs_or_of_a_part_of_one_has_every_phase(
    tmp_path, capsys, frames, budget, num_epochs
):
    data, run = write_dataset(tmp_path / "data", train=frames), tmp_path / "run"
    flags = ["--batch_size=1", "--start_vi_len=2", "--train_vi_len=5", budget]
    history = train(data, run, *SMALL_UNET, *flags)
    assert len(history) == num_epochs and "too short" not in capsys.readouterr().out
    first, last = history[0], history[-1]
    assert 0 < float(first["teacher_forcing"]) < 1 and float(last["tfr"]) == 0
    assert (first["beta_min"], first["beta_max"], last["beta_max"]) == ("0.3", "1.0", "1.0")
    assert (first["clip_length_min"], last["clip_length_max"]) == ("2", "5")
    columns = checkpoint.read(run / "last.ckpt")["history"]["steps"].T
    steps = dict(zip(STEP_COLUMNS, columns, strict=True))
    num_falls = (steps["beta"].diff() < 0).sum()
    assert num_falls == 3 and steps["beta"][-1] == 1, "four cycles"
    assert (steps["tfr"][0], steps["tfr"][-1], steps["clip_length"][-1]) == (1, 0, 5)
    assert 0 < steps["teacher_forcing"].sum() < (steps["tfr"] > 0).sum()


@pytest.mark.usefixtures("no_images", "clock")
def test_training_ends_after_its_minutes_with_the_schedules_at_their_ends(dataset, tmp_path, capsys):
    flags = [flag for flag in SMALL_RUN if "num_epoch" not in flag]
    flags += ["--max_minutes=0.02", "--lr_schedule=cosine", "--tfr_sde=0", "--per_val=100", "--per_save=100"]
    history = train(dataset, tmp_path, *flags)
    seconds = [float(row["seconds"]) for row in history]
    assert len(history) > 1 and sum(seconds[:-1]) < 1.2 <= sum(seconds)
    rates, tfr = ([float(row[name]) for row in history] for name in ("lr", "tfr"))
    assert rates[-1] < 0.5 * rates[0] and rates == sorted(rates, reverse=True)
    assert tfr[-1] < 0.5 and tfr == sorted(tfr, reverse=True)
    assert (tmp_path / f"epoch={len(history) - 1}.ckpt").exists()
    train(dataset, tmp_path, "--resume")
    assert "already trained for 0.02 minutes" in capsys.readouterr().out
    more = sum(seconds) + 0.3
    longer = train(dataset, tmp_path, "--resume", f"--max_minutes={more / 60}")
    assert len(longer) > len(history) and sum(float(row["seconds"]) for row in longer) >= more
    assert len(train(dataset, tmp_path, "--resume", f"--num_epoch={len(longer) + 1}")) == len(longer) + 1


@pytest.mark.usefixtures("no_images")
def test_run_from_beta_zero_stays_finite(dataset, tmp_path):
    flags = ["--num_epoch=8", "--kl_anneal_start=0", "--kl_anneal_cycle=4", "--per_val=100"]
    history = train(dataset, tmp_path, *SMALL_RUN, *flags)
    assert all(float(row["loss"]) < 1e6 and row["skipped_steps"] == "0" for row in history)


@pytest.mark.usefixtures("no_images")
def test_command_lines_of_the_course_run_as_they_are(dataset, tmp_path, monkeypatch, capsys):
    """docs/compatibility.md, "Command line", with a small dataset and model and few epochs, to save time."""
    (tmp_path / "LAB4_Dataset").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    for line in (
        "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --num_epoch 100 --fast_train"
        " --fast_train_epoch 9 --kl_anneal_type NoKL_Annealing --tfr 0 --num_epoch 2 --per_save 1",
        "--DR LAB4_Dataset/ --save_root checkpoints/tfr1 --tfr 1 --tfr_sde 5 --kl_anneal_type Cyclical"
        " --kl_anneal_ratio 1.5 --num_epoch 22 --fast_train --fast_train_epoch 22 --batch_size 4"
        " --num_epoch 2",
        "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --test"
        " --ckpt checkpoints/max_psnr/epoch=1.ckpt",
    ):
        Trainer.main([*line.split(), *SMALL_MODEL, "--train_vi_len=4", "--batch_size=2", "--device=cpu"])
    capsys.readouterr()
    line = "--DR LAB4_Dataset/ --save_root outputs/max_psnr/ --test --ckpt checkpoints/max_psnr/epoch=1.ckpt"
    Tester.main(line.split())
    lines = r"===== Your Result =====\nPSNR for testing sequence1: \d+\.\d{3}\n"
    assert re.search(lines, capsys.readouterr().out)


def test_background_of_the_poses_is_measured_printed_and_stored(data, dataset, tmp_path, capsys, monkeypatch):
    for index, path in enumerate(sorted(data.rglob("*_label/**/*.png"))):
        pose = Image.new("RGB", (16, 8))
        pose.paste("yellow", (index % 12, 2, index % 12 + 3, 6))
        pose.save(path)
    train(data, tmp_path / "run", *SMALL_UNET, "--num_epoch=1")
    assert "poses on black (--pose_background)" in capsys.readouterr().out
    _, config = checkpoint.load_for_inference(tmp_path / "run" / "last.ckpt")
    assert config.pose_background == "#000000"
    with pytest.raises(UserError, match="trained with --pose_background #000000, not #ffffff"):
        checkpoint.load_for_inference(tmp_path / "run" / "last.ckpt", pose_background="#ffffff")
    command = [
        "--ckpt_path",
        str(tmp_path / "run" / "last.ckpt"),
        "--save_root",
        str(tmp_path / "out"),
        "--device=cpu",
    ]
    for root, is_other in ((data, False), (dataset, True)):
        Tester.main([*command, "--DR", str(root)])
        assert ("but --pose_background is black" in capsys.readouterr().out) == is_other
    given, generate = [], evaluate.generate
    monkeypatch.setattr(
        evaluate, "generate", lambda *call, **named: given.append(call[1]) or generate(*call, **named)
    )
    Tester.main([*command, "--DR", str(data), "--pose_dropout=1"])
    assert not given[-1][0].poses[1:].any()


def test_a_run_that_is_built_writes_nothing(finished_run, dataset, tmp_path):
    start = str(finished_run[0] / "epoch=0.ckpt")
    flags = ["--DR", str(dataset), "--save_root", str(tmp_path), "--ckpt_path", start]
    Trainer.Run(*checkpoint.resolve_trainer(flags))
    assert not list(tmp_path.iterdir())
