"""Trainer.py as its users run it: printouts, records, and that every flag does something."""

import csv
import json
import re

import pytest
import torch
from PIL import Image

import Trainer
import utils
from modules import VAE_Model
from tests.helpers import (
    LAB_FORMAT_KEYS,
    SMALL_MODEL,
    SMALL_RUN,
    SMALL_UNET,
    assert_succeeds,
    assert_user_error,
    run_script,
    small_model,
)
from training import checkpoint
from training.augment import KINDS


def train(dataset, folder, *flags):
    """Run Trainer's main in this process, which saves the loading of torch."""
    Trainer.main(["--DR", str(dataset), "--save_root", str(folder), *SMALL_RUN, *map(str, flags)])
    return checkpoint.read(folder / "last.ckpt")


def rows(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_printouts_are_those_of_the_contract(finished_run):
    folder, done = finished_run
    bars = done.stderr.replace("\r", "\n")
    assert re.search(
        r"\(train \[TeacherForcing: ON, 1\.0\], beta: 0\.01\) Epoch 0, lr:[\d.e-]+: 100%\|.+\| 3/3 \[.*loss=",
        bars,
    )
    assert re.search(r"\(val\) Epoch 1, lr:[\d.e-]+: 100%\|.+\| 5/5 \[.*loss=", bars)
    assert f"save ckpt to {folder}/epoch=0.ckpt" in done.stdout
    printed = [float(value) for value in re.findall(r"^AVG PSNR: ([\d.]+)$", done.stdout, re.M)]
    assert printed == pytest.approx([float(row["val_psnr"]) for row in rows(folder)])


def test_run_folder_explains_itself(finished_run):
    folder, _ = finished_run
    names = {path.name for path in folder.iterdir()}
    assert {"last.ckpt", "best.ckpt", "epoch=0.ckpt", "epoch=1.ckpt", "val_epoch=1.gif"} <= names
    for plot in ("losses", "schedules", "val_psnr_by_epoch", "val_psnr_by_frame", "val_psnr_epoch=1"):
        with Image.open(folder / f"{plot}.png") as picture:
            assert picture.height > 300
    with Image.open(folder / "val_epoch=1.gif") as gif:
        assert gif.n_frames == 6
    flags = json.loads((folder / "args.json").read_text())
    assert flags["F_dim"] == 8 and flags["kl_anneal_type"] == "Cyclical"
    assert [row["epoch"] for row in rows(folder)] == ["0", "1"]
    assert not [name for name in names if name.endswith(".tmp")]


def test_checkpoint_is_one_of_the_lab_with_more_beside(finished_run):
    folder, _ = finished_run
    content = checkpoint.read(folder / "last.ckpt")
    assert set(content) >= LAB_FORMAT_KEYS
    assert content["last_epoch"] == 1
    VAE_Model(small_model()).load_state_dict(content["state_dict"], strict=True)


def test_store_visualization_writes_pictures_of_every_epoch(dataset, tmp_path):
    train(dataset, tmp_path, "--num_epoch=2", "--store_visualization")
    assert len(list(tmp_path.glob("val_epoch=*.gif"))) == 2
    assert len(list(tmp_path.glob("val_psnr_epoch=*.png"))) == 2


def test_test_validates_a_checkpoint_and_trains_nothing(finished_run, dataset, tmp_path, capsys):
    folder, done = finished_run
    Trainer.main(
        ["--DR", str(dataset), "--save_root", str(tmp_path), "--test", "--ckpt", str(folder / "last.ckpt")]
    )
    printed = re.findall(r"AVG PSNR: .*", capsys.readouterr().out)
    assert printed == re.findall(r"AVG PSNR: .*", done.stdout)[-1:]
    assert {path.name for path in tmp_path.iterdir()} == {"val_epoch=1.gif", "val_psnr_epoch=1.png"}


BASE = ["--num_epoch=2", "--tfr=0", "--lr_schedule=cosine", "--lr_warmup=50", "--clips=shuffled"]
CHANGES = [
    ["--lr=0.01"],
    ["--optim=AdamW", "--weight_decay=0.1"],
    ["--optim=Muon"],
    ["--weight_decay=0.1"],
    ["--lr_schedule=constant", "--lr_warmup=0"],
    ["--lr_warmup=0"],
    ["--batch_size=1"],
    ["--clips=in_order"],
    ["--partial=0.7"],
    ["--fast_train", "--fast_partial=0.5"],
    ["--fast_train", "--fast_partial=0.5", "--fast_train_epoch=1"],
    ["--train_vi_len=5"],
    ["--start_vi_len=3"],
    ["--frame_H=10"],
    ["--frame_W=12"],
    ["--output=sigmoid"],
    ["--seed=1"],
    ["--tfr=1", "--tfr_sde=9"],
    ["--kl_anneal_type=NoKL_Annealing"],
    ["--kl_anneal_cycle=1", "--kl_anneal_start=0"],
    ["--kl_anneal_cycle=2", "--kl_anneal_ratio=3"],
    ["--kl_anneal_start=0.5"],
    ["--kl_reduction=mean"],
    ["--z_dropout=0.5"],
    ["--mse_weights=psnr"],
    ["--precision=bf16"],
    ["--kl_reduction=elbo"],
    ["--arch=unet", "--output=linear"],
    ["--first_frame=any"],
    ["--pose_dropout=0.5"],
    *([f"--augment={kind}"] for kind in KINDS if kind != "paste"),  # its own tests: it needs a background
]


@pytest.fixture(scope="module")
def base_weights(dataset, tmp_path_factory):
    """Of a run with BASE, of one with fewer workers, and all that CHANGES lead to, by their flags."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        # Only the weights matter here, and drawing takes most of the time of so small a run.
        for name in ("save_gif", *(name for name in dir(utils) if name.startswith("plot_"))):
            patch.setattr(utils, name, lambda *_: None)
        for flags in ([], ["--num_workers=1"], *CHANGES):
            folder = tmp_path_factory.mktemp("change")
            content = train(dataset, folder, *BASE, "--precision=fp32", *flags)
            weights = torch.cat([value.double().flatten() for value in content["state_dict"].values()])
            runs[tuple(flags)] = weights
    return runs


@pytest.mark.parametrize("flags", CHANGES, ids=" ".join)
def test_flag_changes_what_is_learned(base_weights, flags):
    assert not torch.equal(base_weights[()], base_weights[tuple(flags)])


def test_optimizers_differ_in_how_weights_decay(base_weights):
    decayed = base_weights[("--weight_decay=0.1",)]
    assert not torch.equal(decayed, base_weights[("--optim=AdamW", "--weight_decay=0.1")])


def test_number_of_workers_changes_nothing_but_speed(base_weights):
    assert torch.equal(base_weights[()], base_weights[("--num_workers=1",)])


def test_default_networks_train_and_are_tested_by_the_two_commands(dataset, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    data = ["--DR", dataset, "--save_root"]
    assert_succeeds(run_script("Trainer.py", *data, run, *SMALL_UNET, "--num_epoch=2", "--device=cpu"))
    assert checkpoint.read(run / "best.ckpt")["args"]["arch"] == "unet"
    output = assert_succeeds(run_script("Tester.py", *data, out, "--ckpt", run / "best.ckpt", "--device=cpu"))
    assert "PSNR for testing sequence2: " in output


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time of so small a run."""
    for name in ("save_gif", *(name for name in dir(utils) if name.startswith("plot_"))):
        monkeypatch.setattr(utils, name, lambda *_: None)


@pytest.mark.usefixtures("no_pictures")
def test_training_ends_after_its_minutes_with_the_schedules_at_their_ends(dataset, tmp_path, capsys):
    flags = ["--max_minutes=0.04", "--lr_warmup=0", "--tfr=1", "--tfr_sde=0", "--per_save=1000"]
    train_flags = [flag for flag in SMALL_RUN if "num_epoch" not in flag]
    command = ["--DR", str(dataset), "--save_root", str(tmp_path)]
    Trainer.main([*command, *train_flags, *flags])
    history = rows(tmp_path)
    seconds = [float(row["seconds"]) for row in history]
    assert sum(seconds[:-1]) < 2.4 <= sum(seconds)
    assert len(history) > 1
    tfr = [float(row["tfr"]) for row in history]
    assert tfr[0] > 0.9 and tfr[-1] < 0.5 and tfr == sorted(tfr, reverse=True)
    rates = [float(row["lr"]) for row in history]
    assert rates[-1] < 0.5 * rates[0] and rates == sorted(rates, reverse=True)
    assert (tmp_path / f"epoch={len(history) - 1}.ckpt").exists()
    capsys.readouterr()
    Trainer.main([*command, "--resume", "--device=cpu"])
    assert "0.04 minutes of training are done already" in capsys.readouterr().out
    Trainer.main([*command, "--resume", "--device=cpu", "--max_minutes=0.06"])
    assert len(rows(tmp_path)) > len(history)
    assert sum(float(row["seconds"]) for row in rows(tmp_path)) >= 3.6
    Trainer.main([*command, "--resume", "--device=cpu", f"--num_epoch={len(rows(tmp_path)) + 1}"])
    assert "best:" in capsys.readouterr().out


def test_validation_every_per_val_epochs_and_in_the_last(dataset, tmp_path, capsys):
    train(dataset, tmp_path, "--num_epoch=6", "--per_val=3", "--per_save=100")
    assert [row["epoch"] for row in rows(tmp_path) if row["val_psnr"]] == ["0", "3", "5"]
    assert capsys.readouterr().out.count("AVG PSNR") == 3
    assert checkpoint.read(tmp_path / "best.ckpt")["last_epoch"] in (0, 3, 5)


def test_teacher_forcing_step_shows_in_the_history(dataset, tmp_path):
    train(dataset, tmp_path, "--num_epoch=3", "--tfr=1", "--tfr_sde=1", "--tfr_d_step=0.25", "--per_save=2")
    assert [float(row["tfr"]) for row in rows(tmp_path)] == [1.0, 0.75, 0.5]
    assert {path.name for path in tmp_path.glob("epoch*")} == {"epoch=0.ckpt", "epoch=2.ckpt"}


def test_latents_are_sampled_or_zero_in_validation(dataset, tmp_path):
    mean = train(dataset, tmp_path / "mean")["history"]["rows"][0]
    sample = train(dataset, tmp_path / "sample", "--z=sample")["history"]["rows"][0]
    assert mean["loss"] == sample["loss"] and mean["val_psnr"] != sample["val_psnr"]


@pytest.mark.usefixtures("no_pictures")
def test_run_from_beta_zero_stays_finite(dataset, tmp_path):
    train(dataset, tmp_path, "--num_epoch=8", "--kl_anneal_start=0", "--kl_anneal_cycle=4", "--tfr=1")
    assert all(float(row["loss"]) < 1e6 and row["skipped_steps"] == "0" for row in rows(tmp_path))


def test_diverged_run_ends_with_a_line_and_keeps_its_checkpoint(finished_run, dataset, tmp_path):
    folder, _ = finished_run
    done = run_script(
        "Trainer.py", "--DR", dataset, "--save_root", tmp_path / "run", "--num_epoch=20",
        "--ckpt_path", folder / "last.ckpt", "--lr=1e38", "--lr_schedule=constant",
    )  # fmt: skip
    assert_user_error(done, "diverged", "epochs before")
    content = checkpoint.read(folder / "last.ckpt")
    assert checkpoint.read(tmp_path / "run" / "last.ckpt")["last_epoch"] == content["last_epoch"]
    content["state_dict"]["Generator.7.bias"].fill_(float("nan"))
    checkpoint.write(tmp_path / "broken.ckpt", content)
    done = run_script(
        "Trainer.py", "--DR", dataset, "--save_root", tmp_path / "next", "--num_epoch=20",
        "--ckpt_path", tmp_path / "broken.ckpt",
    )  # fmt: skip
    assert_user_error(done, "Generator.7.bias are not finite", "diverged")


def test_command_lines_of_the_course_lab_run_as_they_are(dataset, tmp_path):
    """docs/contract.md, "Command line", with a small dataset and model and few epochs, to save time."""
    (tmp_path / "LAB4_Dataset").symlink_to(dataset)
    small = [*SMALL_MODEL, "--train_vi_len=4", "--batch_size=2", "--device=cpu"]
    lines = [
        "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --num_epoch 100 --fast_train"
        " --fast_train_epoch 9 --kl_anneal_type NoKL_Annealing --tfr 0 --num_epoch 2 --per_save 1",
        "--DR LAB4_Dataset/ --save_root checkpoints/tfr1 --tfr 1 --tfr_sde 5 --kl_anneal_type Cyclical"
        " --kl_anneal_ratio 1.5 --num_epoch 22 --fast_train --fast_train_epoch 22 --batch_size 4"
        " --num_epoch 2",
        "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --test"
        " --ckpt checkpoints/max_psnr/epoch=1.ckpt",
    ]
    for line in lines:
        assert_succeeds(run_script("Trainer.py", *line.split(), *small, cwd=tmp_path))
    line = "--DR LAB4_Dataset/ --save_root outputs/max_psnr/ --test --ckpt checkpoints/max_psnr/epoch=1.ckpt"
    output = assert_succeeds(run_script("Tester.py", *line.split(), cwd=tmp_path))
    assert re.search(r"===== Your Result =====\nPSNR for testing sequence1: \d+\.\d{3}\n", output)


def test_validation_alone_builds_nothing_for_training_and_prints_the_checkpoint_s_learning_rate(
    finished_run, dataset, tmp_path, monkeypatch, capsys
):
    for name in ("TrainingClips", "TrainingStep", "make_optimizer", "History", "Budget"):
        monkeypatch.setattr(Trainer, name, None)
    last = finished_run[0] / "last.ckpt"
    Trainer.main(["--DR", str(dataset), "--save_root", str(tmp_path), "--test", "--ckpt", str(last)])
    assert f"lr:{checkpoint.read(last)['lr']:.2e}:" in capsys.readouterr().err


def test_a_run_that_is_built_writes_nothing(finished_run, dataset, tmp_path):
    folder, _ = finished_run
    args, start = checkpoint.trainer_flags(
        ["--DR", str(dataset), "--save_root", str(tmp_path), "--ckpt_path", str(folder / "epoch=0.ckpt")]
    )
    Trainer.Run(args, start)
    assert not list(tmp_path.iterdir())
