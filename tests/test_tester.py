"""Tester.py as its users run it."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import Tester
import utils
from dataloader import load_test_sequences
from modules import VAE_Model
from tests.helpers import (
    HEIGHT,
    SMALL_MODEL,
    WIDTH,
    assert_succeeds,
    run_script,
    small_model,
    write_dataset,
)
from tools import plain_reference
from training import checkpoint, evaluate
from utils import to_float

DATA_FLAGS = SimpleNamespace(num_workers=1, frame_H=HEIGHT, frame_W=WIDTH, val_vi_len=6, fill_poses=0)


def render(dataset, folder, ckpt, *flags):
    """Run Tester's main in this process; returns results.json."""
    Tester.main(
        ["--DR", str(dataset), "--save_root", str(folder), "--ckpt", str(ckpt), "--device=cpu", *flags]
    )
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def ckpt(finished_run):
    return finished_run[0] / "last.ckpt"


def submitted_frames(path):
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", *map(str, range(3 * HEIGHT * WIDTH))]
    assert [row[0] for row in rows[1:]] == [str(i) for i in range(len(rows) - 1)]
    return np.array([row[1:] for row in rows[1:]], dtype=int)


def test_printout_results_and_pictures(dataset, ckpt, tmp_path):
    done = run_script("Tester.py", "--DR", dataset, "--save_root", tmp_path, "--ckpt", ckpt, "--device=cpu")
    output = assert_succeeds(done)
    results = json.loads((tmp_path / "results.json").read_text())
    printed = re.search(
        r"===== Your Result =====\nPSNR for testing sequence1: (.*)\n"
        r"PSNR for testing sequence2: (.*)\nAVG: (.*)\n",
        output,
    )
    scores = [sequence["psnr"] for sequence in results["sequences"]]
    expected = [*scores, sum(scores) / 2]
    assert [float(value) for value in printed.groups()] == pytest.approx(expected, abs=6e-4)
    assert results["average"]["psnr"] == pytest.approx(sum(scores) / 2)
    for sequence in results["sequences"]:
        assert len(sequence["psnr_by_frame"]) == len(sequence["ssim_by_frame"]) == 5
        assert np.mean(sequence["psnr_by_frame"]) == pytest.approx(sequence["psnr"])
        assert -1 <= sequence["ssim"] <= 1
    names = {path.name for path in tmp_path.iterdir()}
    gifs = {f"{kind}_seq{i}.gif" for kind in ("pred", "compare") for i in (1, 2)}
    kinds = (("sheet_seq", "png"), ("pred_seq", "npz"))
    others = {f"{name}{i}.{kind}" for name, kind in kinds for i in (1, 2)}
    assert names == gifs | others | {"results.json", "psnr_by_frame.png"}
    with Image.open(tmp_path / "sheet_seq1.png") as sheet:
        assert sheet.width > 4 * WIDTH and sheet.height > 6 * HEIGHT
    with Image.open(tmp_path / "compare_seq2.gif") as gif:
        assert gif.n_frames == 6


@pytest.mark.parametrize("sizes_from", ["defaults", "flags"])
def test_checkpoint_in_the_lab_s_own_format_renders_as_the_plain_loop_does(dataset, tmp_path, sizes_from):
    torch.manual_seed(3)
    sizes = {} if sizes_from == "flags" else {"F_dim": 128, "L_dim": 32, "N_dim": 12, "D_out_dim": 192}
    model = VAE_Model(small_model(**sizes))
    model.label_transformation(torch.rand(4, 3, HEIGHT, WIDTH))  # BatchNorm's statistics are not trivial
    weights = model.state_dict()
    content = {"state_dict": weights, "optimizer": weights, "lr": 1e-05, "tfr": 0.0, "last_epoch": 99}
    torch.save(content, tmp_path / "epoch=99.ckpt")
    flags = [f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}", "--val_vi_len=6"] if sizes else SMALL_MODEL
    results = render(dataset, tmp_path, tmp_path / "epoch=99.ckpt", *flags, "--submission", "--no-make_gif")
    assert results["last_epoch"] == 99
    rows = submitted_frames(tmp_path / "submission.csv")
    DATA_FLAGS.DR = dataset
    model.eval()
    expected = [
        plain_reference.render(model, to_float(sequence.first_frame), to_float(sequence.poses))
        for sequence in load_test_sequences(DATA_FLAGS)
    ]
    pictures = np.concatenate([utils.to_uint8(video).transpose(0, 3, 1, 2) for video in expected])
    assert np.abs(rows - pictures.reshape(len(pictures), -1)).max() <= 1
    assert (rows == pictures.reshape(len(pictures), -1)).mean() > 0.999


def test_submission_has_every_frame_of_every_sequence(dataset, ckpt, tmp_path):
    render(dataset, tmp_path, ckpt, "--submission")
    rows = submitted_frames(tmp_path / "submission.csv")
    assert rows.shape == (2 * 6, 3 * HEIGHT * WIDTH)
    DATA_FLAGS.DR = dataset
    first = load_test_sequences(DATA_FLAGS)[1].first_frame
    assert np.array_equal(rows[6].reshape(3, HEIGHT, WIDTH), first.transpose(2, 0, 1))


def test_precision_changes_pictures_by_no_more_than_it_must(dataset, ckpt, tmp_path):
    frames = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        render(dataset, folder, ckpt, "--submission", "--no-make_gif", f"--precision={precision}")
        frames[precision] = submitted_frames(folder / "submission.csv")
    difference = np.abs(frames["fp32"] - frames["bf16"])
    assert 0 < difference.max() <= 4


def test_frames_are_means_over_as_many_shifts_as_the_flag_or_the_run_says(dataset, ckpt, tmp_path):
    frames = {}
    for name, flags in {"as the run": [], "three": ["--shifts=3"], "one": ["--shifts=1"]}.items():
        render(dataset, tmp_path / name, ckpt, "--submission", "--no-make_gif", *flags)
        frames[name] = submitted_frames(tmp_path / name / "submission.csv")
    assert np.array_equal(frames["as the run"], frames["one"])  # --recipe lab
    assert not np.array_equal(frames["three"], frames["one"])


def test_gif_and_mp4_by_flag(dataset, ckpt, tmp_path):
    render(dataset, tmp_path / "mp4", ckpt, "--mp4", "--no-make_gif")
    assert {path.suffix for path in (tmp_path / "mp4").iterdir()} == {".mp4", ".json", ".png", ".npz"}
    assert len(list((tmp_path / "mp4").glob("*.mp4"))) == 4
    render(dataset, tmp_path / "gif", ckpt, "--make_gif")
    assert len(list((tmp_path / "gif").glob("*.gif"))) == 4


def test_samples_score_the_mean_one_draw_and_the_best_and_mean_of_n(dataset, ckpt, tmp_path):
    results = render(dataset, tmp_path, ckpt, "--samples", "3", "--no-make_gif")
    for sequence in results["sequences"]:
        zero, one, best, mean = (
            sequence["samples"][name] for name in ("z=0", "one z", "best of 3", "mean of 3")
        )
        assert zero == pytest.approx(sequence["psnr"])
        assert best >= max(one, mean) and best > mean
    again = render(dataset, tmp_path, ckpt, "--z=sample", "--no-make_gif")
    drawn = [sequence["psnr"] for sequence in again["sequences"]]
    assert drawn == pytest.approx([sequence["samples"]["one z"] for sequence in results["sequences"]])
    other = render(dataset, tmp_path, ckpt, "--z=sample", "--seed=7", "--no-make_gif")
    assert drawn != pytest.approx([sequence["psnr"] for sequence in other["sequences"]], abs=1e-9)


def test_samples_say_how_much_of_z_is_used_and_are_shown(dataset, ckpt, tmp_path):
    content = checkpoint.read(ckpt)
    last = content["state_dict"]["Gaussian_Predictor.6.weight"]
    units = 4 * HEIGHT * WIDTH
    for name, factor in (("dead", 0.0), ("alive", 100.0)):
        content["state_dict"]["Gaussian_Predictor.6.weight"] = last * factor
        content["state_dict"]["Gaussian_Predictor.6.bias"].zero_()
        checkpoint.write(tmp_path / f"{name}.ckpt", content)
        results = render(dataset, tmp_path / name, tmp_path / f"{name}.ckpt", "--samples=2")
        used = results["sequences"][0]["samples"]
        assert used["units"] == units
        if name == "dead":
            assert used["active units"] == 0 and used["KL of a frame"] == 0
        else:
            assert used["active units"] > units / 4 and used["KL of a frame"] > 1
    with Image.open(tmp_path / "alive" / "samples_seq1.gif") as gif:
        assert gif.n_frames == 6
    assert (tmp_path / "alive" / "samples_sheet_seq2.png").exists()


def test_pose_dropout_scores_a_rollout_in_which_some_poses_are_blank(dataset, ckpt, tmp_path, capsys):
    flags = ["--pose_dropout=0.5", "--no-make_gif", "--precision=fp32"]
    results = render(dataset, tmp_path, ckpt, *flags)
    printed = capsys.readouterr().out
    for sequence in results["sequences"]:
        scores = sequence["pose_dropout"]
        assert 0 < scores["blank poses"] < 6
        assert scores["PSNR"] == pytest.approx(sequence["psnr"] - scores["loss"], abs=1e-3)
        assert scores["loss"] != 0 and scores["loss in the frames of blank poses"] != 0
        assert f"PSNR: {scores['PSNR']:.6g}" in printed
    assert render(dataset, tmp_path, ckpt, *flags) == results, "drawn by the seed"
    assert render(dataset, tmp_path, ckpt, *flags, "--seed=1") != results
    whole = render(dataset, tmp_path, ckpt, "--pose_dropout=1", "--no-make_gif", "--precision=fp32")
    assert whole["sequences"][0]["pose_dropout"]["blank poses"] == 5


def test_lost_poses_are_filled_from_their_neighbours(dataset, ckpt, tmp_path):
    """A video with a blank pose is that with the pose before it, unless filling is off."""
    blank, held = tmp_path / "blank", tmp_path / "held"
    for data in (blank, held):
        shutil.copytree(dataset, data, ignore=shutil.ignore_patterns(".frame_cache"))
    for label in ("0", "1"):
        lost, before = sorted((blank / "test/test_label" / label).glob("*.png"))[3:1:-1]
        shutil.copy(before, held / lost.relative_to(blank))
        Image.new("RGB", (WIDTH, HEIGHT), "white").save(lost)
    flags = ["--no-make_gif", "--precision=fp32"]
    results = [
        render(data, tmp_path / "out", ckpt, *flags, f"--fill_poses={count}")["average"]["psnr"]
        for data, count in ((blank, 0), (blank, 1), (held, 0))
    ]
    assert results[1] == results[2] != results[0]


def test_drift_compares_the_rollout_with_frames_made_from_true_ones(
    dataset, ckpt, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate, "DRIFT_FRAMES", 5)
    results = render(dataset, tmp_path, ckpt, "--drift", "--no-make_gif", "--precision=fp32")
    content = checkpoint.read(ckpt)
    model = VAE_Model(SimpleNamespace(**content["args"]))
    model.load_state_dict(content["state_dict"])
    DATA_FLAGS.DR = dataset
    video = load_test_sequences(DATA_FLAGS)[0]
    truth = video.truth
    model.eval()
    one_by_one = [
        plain_reference.render(model, truth[t], to_float(video.poses[t : t + 2]))[1] for t in range(5)
    ]
    expected = utils.psnr_by_frame(torch.stack(one_by_one), truth[1:])
    sequence = results["sequences"][0]
    assert sequence["psnr_forced_by_frame"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert sequence["drift"] == pytest.approx(expected.mean().item() - sequence["psnr"], abs=1e-3)
    assert f"drift at the end: {sequence['drift']:.3f}" in capsys.readouterr().out


def test_without_truth_it_renders_and_says_so(ckpt, tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data", truth=False)
    results = render(dataset, tmp_path / "out", ckpt, "--samples=2")
    printed = capsys.readouterr().out
    assert printed.count("no score for testing sequence") == 2 and "AVG" not in printed
    assert results["average"] == {}
    assert (tmp_path / "out" / "compare_seq2.gif").exists()


def test_truth_of_the_lab_is_found_in_the_working_folder(ckpt, tmp_path, monkeypatch, capsys):
    dataset = write_dataset(tmp_path / "data", sequences=2, truth=False)
    (tmp_path / "Demo_Test").mkdir()
    rows = np.random.default_rng(0).random((6, 3 * HEIGHT * WIDTH))
    np.savetxt(tmp_path / "Demo_Test" / "GT1.csv", rows)
    monkeypatch.chdir(tmp_path)
    results = render(dataset, tmp_path / "out", ckpt)
    assert results["sequences"][0]["truth"] is None
    assert results["sequences"][1]["truth"] == "Demo_Test/GT1.csv"
    printed = capsys.readouterr().out
    assert "no score for testing sequence1" in printed and "PSNR for testing sequence2" in printed


def test_sequences_of_different_lengths_are_rendered_together(ckpt, tmp_path):
    dataset = write_dataset(tmp_path / "data", sequences=2)
    for kind in ("label", "gt"):
        for number in (4, 5):
            (dataset / "test" / f"test_{kind}" / "0" / f"frame{number:06d}.png").unlink()
    results = render(dataset, tmp_path / "out", ckpt, "--no-make_gif")
    assert [len(sequence["psnr_by_frame"]) for sequence in results["sequences"]] == [3, 5]


def test_rendering_together_equals_rendering_alone(dataset, ckpt, tmp_path):
    content = checkpoint.read(ckpt)
    model = VAE_Model(SimpleNamespace(**content["args"]))
    model.load_state_dict(content["state_dict"])
    DATA_FLAGS.DR = dataset
    sequences = load_test_sequences(DATA_FLAGS)
    args = SimpleNamespace(precision="fp32", shifts=3, seed=0)
    together = evaluate.generate(model, sequences, args)
    for sequence, video in zip(sequences, together, strict=True):
        (alone,) = evaluate.generate(model, [sequence], args)
        torch.testing.assert_close(video, alone, rtol=1e-4, atol=1e-5)


def test_arrays_hold_the_frames_of_the_videos(dataset, ckpt, tmp_path):
    render(dataset, tmp_path, ckpt, "--submission", "--no-make_gif")
    frames = submitted_frames(tmp_path / "submission.csv").reshape(2, 6, 3, HEIGHT, WIDTH)
    DATA_FLAGS.DR = dataset
    for number, sequence in enumerate(load_test_sequences(DATA_FLAGS)):
        with np.load(tmp_path / f"pred_seq{number + 1}.npz") as arrays:
            assert np.array_equal(arrays["prediction"].transpose(0, 3, 1, 2), frames[number])
            assert np.array_equal(arrays["pose"], sequence.poses)
            assert np.array_equal(arrays["truth"], utils.to_uint8(sequence.truth))


def test_sequences_are_tested_whole_however_short_validation_was(ckpt, tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data", sequences=1, test=9)
    results = render(dataset, tmp_path / "whole", ckpt, "--no-make_gif")
    assert len(results["sequences"][0]["psnr_by_frame"]) == 8
    assert "val_vi_len" not in capsys.readouterr().out
    results = render(dataset, tmp_path / "part", ckpt, "--no-make_gif", "--val_vi_len=4")
    assert len(results["sequences"][0]["psnr_by_frame"]) == 3
