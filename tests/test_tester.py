"""Tester.py as its users run it."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import Tester
import Trainer
import utils
from dataloader import load_test_videos
from modules import VAE_Model
from tests.helpers import (
    HEIGHT,
    SIZES,
    SMALL_MODEL,
    SMALL_RUN,
    WIDTH,
    assert_succeeds,
    run_script,
    small_model,
    write_dataset,
)  # fmt: skip
from tools import plain_reference
from training import checkpoint, evaluate
from utils import to_float


def render(dataset, folder, ckpt, *flags):
    """Run Tester's main in this process; returns results.json."""
    shared = ["--DR", str(dataset), "--save_root", str(folder), "--ckpt", str(ckpt), "--device=cpu"]
    Tester.main([*shared, "--precision=fp32", "--no-make_gif", *flags])
    return json.loads((folder / "results.json").read_text())


def load_videos(dataset):
    args = SimpleNamespace(DR=dataset, num_workers=1, frame_H=HEIGHT, frame_W=WIDTH, val_vi_len=None)
    return load_test_videos(args)


def submitted_frames(folder):
    """`(N, H, W, 3)` of submission.csv."""
    with (folder / "submission.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", *map(str, range(3 * HEIGHT * WIDTH))]
    assert [row[0] for row in rows[1:]] == [str(i) for i in range(len(rows) - 1)]
    frames = np.array([row[1:] for row in rows[1:]], dtype=int)
    return frames.reshape(-1, 3, HEIGHT, WIDTH).transpose(0, 2, 3, 1)


def test_printout_results_and_images(dataset, ckpt, tmp_path):
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
    assert [sequence["sequence"] for sequence in results["sequences"]] == [0, 1]
    for sequence in results["sequences"]:
        assert len(sequence["psnr_by_frame"]) == len(sequence["ssim_by_frame"]) == 5
        assert np.mean(sequence["psnr_by_frame"]) == pytest.approx(sequence["psnr"])
        assert -1 <= sequence["ssim"] <= 1
    kinds = ("pred_seq{}.gif", "compare_seq{}.gif", "sheet_seq{}.png", "pred_seq{}.npz")
    expected = {kind.format(i) for kind in kinds for i in (0, 1)} | {"results.json", "psnr_by_frame.png"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    with Image.open(tmp_path / "sheet_seq1.png") as sheet:
        assert sheet.width > 4 * WIDTH and sheet.height > 6 * HEIGHT
    with Image.open(tmp_path / "compare_seq0.gif") as gif:
        assert gif.n_frames == 6


def test_checkpoint_is_enough_in_the_folder_where_its_run_was_started(
    dataset, tmp_path, monkeypatch, no_images
):
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    Trainer.main(["--DR=data", "--save_root=run", *SMALL_RUN])
    Tester.main(["--ckpt=run/best.ckpt"])
    expected = render("data", tmp_path / "out", "run/best.ckpt")
    assert json.loads(Path("run/test/results.json").read_text()) == expected


@pytest.mark.parametrize("sizes_from", ["defaults", "flags"])
def test_checkpoint_in_the_course_s_format_renders_as_the_plain_loop_does(dataset, tmp_path, sizes_from):
    torch.manual_seed(3)
    sizes = {} if sizes_from == "flags" else {"F_dim": 128, "L_dim": 32, "N_dim": 12, "D_out_dim": 192}
    model = VAE_Model(small_model(**sizes))
    model.label_transformation(torch.rand(4, 3, HEIGHT, WIDTH))  # BatchNorm's statistics are not trivial
    weights = model.state_dict()
    content = {"state_dict": weights, "optimizer": weights, "lr": 1e-05, "tfr": 0.0, "last_epoch": 99}
    torch.save(content, tmp_path / "epoch=99.ckpt")
    flags = [f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}"] if sizes else SMALL_MODEL
    results = render(dataset, tmp_path, tmp_path / "epoch=99.ckpt", *flags, "--submission")
    assert results["last_epoch"] == 99
    model.eval()
    videos = [(to_float(video.first_frame), to_float(video.poses)) for video in load_videos(dataset)]
    expected = np.concatenate([utils.to_uint8(plain_reference.render(model, *video)) for video in videos])
    difference = np.abs(submitted_frames(tmp_path) - expected)
    assert difference.max() <= 1 and (difference == 0).mean() > 0.999


def test_submission_and_arrays_hold_every_frame_of_every_video(dataset, ckpt, tmp_path):
    render(dataset, tmp_path, ckpt, "--submission")
    frames = submitted_frames(tmp_path).reshape(2, 6, HEIGHT, WIDTH, 3)
    for video, submitted in zip(load_videos(dataset), frames, strict=True):
        assert np.array_equal(submitted[0], video.first_frame)
        with np.load(tmp_path / f"pred_seq{video.number}.npz") as arrays:
            assert np.array_equal(arrays["prediction"], submitted)
            assert np.array_equal(arrays["pose"], video.poses)
            assert np.array_equal(arrays["truth"], utils.to_uint8(video.truth))


def test_precision_changes_frames_by_no_more_than_it_must(dataset, ckpt, tmp_path):
    frames = []
    for precision in ("fp32", "bf16"):
        render(dataset, tmp_path, ckpt, "--submission", f"--precision={precision}")
        frames.append(submitted_frames(tmp_path))
    assert 0 < np.abs(frames[0] - frames[1]).max() <= 4


def test_gif_and_mp4_by_flag(dataset, ckpt, tmp_path):
    render(dataset, tmp_path, ckpt, "--mp4")
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".json", ".png", ".npz"}
    names = {f"{kind}_seq{i}.mp4" for kind in ("pred", "compare") for i in (0, 1)}
    assert {path.name for path in tmp_path.glob("*.mp4")} == names
    render(dataset, tmp_path, ckpt, "--make_gif")
    assert len(list(tmp_path.glob("*.gif"))) == 4


def test_videos_play_at_the_frame_rate_of_the_dataset(dataset, ckpt, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    for content, expected in (('{"fps": 10}', 10), ('["other"]', 20), ('{"fps": 0}', 20), ("{", 20)):
        (copy / "poses.json").write_text(content)
        assert render(copy, tmp_path / "out", ckpt, "--make_gif")["fps"] == expected
        with Image.open(tmp_path / "out" / "compare_seq0.gif") as gif:
            assert gif.info["duration"] == 1000 / expected


def test_samples_score_the_mean_one_sample_and_the_best_and_mean_of_n(dataset, ckpt, tmp_path):
    results = render(dataset, tmp_path, ckpt, "--samples=3")
    samples = [sequence["samples"] for sequence in results["sequences"]]
    for sequence, scores in zip(results["sequences"], samples, strict=True):
        assert scores["psnr_z0"] == pytest.approx(sequence["psnr"])
        best, mean = scores["psnr_best_of_3"], scores["psnr_mean_of_3"]
        assert best >= max(scores["psnr_one_sample"], mean) and best > mean
    again = render(dataset, tmp_path, ckpt, "--z=sample")
    drawn = [sequence["psnr"] for sequence in again["sequences"]]
    assert drawn == pytest.approx([scores["psnr_one_sample"] for scores in samples])
    other = render(dataset, tmp_path, ckpt, "--z=sample", "--seed=7")
    assert drawn != pytest.approx([sequence["psnr"] for sequence in other["sequences"]], abs=1e-9)


def test_samples_say_how_much_the_posterior_uses_z_and_are_shown(dataset, ckpt, tmp_path):
    content = checkpoint.read(ckpt)
    weights, units = content["state_dict"], 4 * HEIGHT * WIDTH
    last = weights["Gaussian_Predictor.6.weight"]
    weights["Gaussian_Predictor.6.bias"].zero_()
    use = {}
    for factor in (0, 100):
        weights["Gaussian_Predictor.6.weight"] = last * factor
        checkpoint.write(tmp_path / "a.ckpt", content)
        results = render(dataset, tmp_path, tmp_path / "a.ckpt", "--samples=2", "--make_gif")
        use[factor] = results["sequences"][0]["samples"]
    assert use[0]["units"] == units and use[0]["active_units"] == use[0]["kl_per_frame"] == 0
    assert use[100]["active_units"] > units / 4 and use[100]["kl_per_frame"] > 1
    with Image.open(tmp_path / "samples_seq1.gif") as gif:
        assert gif.n_frames == 6
    assert (tmp_path / "samples_sheet_seq0.png").exists()


def test_pose_dropout_scores_a_rollout_in_which_some_poses_are_blank(dataset, ckpt, tmp_path, capsys):
    results = render(dataset, tmp_path, ckpt, "--pose_dropout=0.5")
    printed = capsys.readouterr().out
    for sequence in results["sequences"]:
        scores = sequence["pose_dropout"]
        assert 0 < scores["num_blank"] < 6
        assert scores["psnr"] == pytest.approx(sequence["psnr"] - scores["psnr_loss"], abs=1e-3)
        assert scores["psnr_loss"] != 0 and scores["psnr_loss_blank"] != 0
        assert f"psnr {scores['psnr']:.6g}" in printed
    assert render(dataset, tmp_path, ckpt, "--pose_dropout=0.5") == results, "drawn by the seed"
    assert render(dataset, tmp_path, ckpt, "--pose_dropout=0.5", "--seed=1") != results
    all_blank = render(dataset, tmp_path, ckpt, "--pose_dropout=1")
    assert all_blank["sequences"][0]["pose_dropout"]["num_blank"] == 5


def test_missing_poses_are_filled_from_their_neighbours(dataset, ckpt, tmp_path):
    """A video with a blank pose is that with the pose before it, unless filling is off."""
    blank, held = tmp_path / "blank", tmp_path / "held"
    for data in (blank, held):
        shutil.copytree(dataset, data, ignore=shutil.ignore_patterns(".frame_cache"))
    for label in ("0", "1"):
        missing, before = sorted((blank / "test/test_label" / label).glob("*.png"))[3:1:-1]
        shutil.copy(before, held / missing.relative_to(blank))
        Image.new("RGB", (WIDTH, HEIGHT), "white").save(missing)
    results = [
        render(data, tmp_path / "out", ckpt, f"--fill_poses={count}")["average"]["psnr"]
        for data, count in ((blank, 0), (blank, 1), (held, 0))
    ]
    assert results[1] == results[2] != results[0]


def test_drift_compares_the_rollout_with_frames_made_from_true_ones(
    dataset, ckpt, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate, "DRIFT_FRAMES", 5)
    sequence = render(dataset, tmp_path, ckpt, "--drift")["sequences"][0]
    model, _ = checkpoint.load_for_inference(ckpt)
    video = load_videos(dataset)[0]
    one_by_one = [
        plain_reference.render(model, video.truth[t], to_float(video.poses[t : t + 2]))[1] for t in range(5)
    ]
    expected = utils.psnr_by_frame(torch.stack(one_by_one), video.truth[1:])
    assert sequence["psnr_forced_by_frame"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert sequence["drift"] == pytest.approx(expected.mean().item() - sequence["psnr"], abs=1e-3)
    assert f"drift at the end: {sequence['drift']:.3f}" in capsys.readouterr().out


def test_drift_has_the_same_z_on_both_sides(dataset, ckpt, tmp_path, monkeypatch):
    """Without a feature of the previous frame, teacher forcing changes nothing."""
    monkeypatch.setattr(evaluate, "DRIFT_FRAMES", 5)
    content = checkpoint.read(ckpt)
    weights = content["state_dict"]
    for name in ("weight", "bias"):
        weights[f"frame_transformation.6.{name}"].zero_()
    weights["Decoder_Fusion.1.skip.weight"][:, -SIZES["N_dim"] :] *= 10  # z matters
    weights["Generator.7.bias"].fill_(0.5)  # most pixels are in [0, 1]
    checkpoint.write(tmp_path / "a.ckpt", content)
    psnr = {}
    for z in ("mean", "sample"):
        sequences = render(dataset, tmp_path, tmp_path / "a.ckpt", "--drift", f"--z={z}")["sequences"]
        assert [scores["drift"] for scores in sequences] == pytest.approx([0, 0], abs=1e-4)
        psnr[z] = sequences[1]["psnr_forced"]
    assert abs(psnr["sample"] - psnr["mean"]) > 0.01


def test_without_truth_it_renders_and_says_so(ckpt, tmp_path, capsys, monkeypatch):
    dataset = write_dataset(tmp_path / "data", truth=False)
    results = render(dataset, tmp_path / "out", ckpt, "--samples=2", "--make_gif")
    printed = capsys.readouterr().out
    assert printed.count("no score for testing sequence") == 2 and "AVG" not in printed
    assert results["average"] == {} and (tmp_path / "out" / "compare_seq1.gif").exists()
    # The course's truth lies in the current folder.
    (tmp_path / "Demo_Test").mkdir()
    rows = np.random.default_rng(0).random((6, 3 * HEIGHT * WIDTH))
    np.savetxt(tmp_path / "Demo_Test" / "GT1.csv", rows)
    monkeypatch.chdir(tmp_path)
    results = render(dataset, tmp_path / "out", ckpt)
    assert [sequence["truth"] for sequence in results["sequences"]] == [None, "Demo_Test/GT1.csv"]
    printed = capsys.readouterr().out
    assert "no score for testing sequence1" in printed and "PSNR for testing sequence2" in printed


def test_videos_of_different_lengths_are_rendered_together_and_whole(ckpt, tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data", test=9)
    for kind in ("label", "gt"):
        for number in range(4, 9):
            (dataset / "test" / f"test_{kind}" / "0" / f"frame{number:06d}.png").unlink()
    results = render(dataset, tmp_path / "out", ckpt)  # its run had --val_vi_len 6
    assert [len(sequence["psnr_by_frame"]) for sequence in results["sequences"]] == [3, 8]
    assert "val_vi_len" not in capsys.readouterr().out
    results = render(dataset, tmp_path / "out", ckpt, "--val_vi_len=4")
    assert [len(sequence["psnr_by_frame"]) for sequence in results["sequences"]] == [3, 3]


def test_rendering_together_equals_rendering_one_by_one(dataset, ckpt):
    model, args = checkpoint.load_for_inference(ckpt, tta=3)
    videos = load_videos(dataset)
    for video, together in zip(videos, evaluate.generate(model, videos, args), strict=True):
        (single,) = evaluate.generate(model, [video], args)
        torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)
