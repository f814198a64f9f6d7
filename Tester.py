"""Generate the test sequences with a checkpoint, and score those with ground truth.

    python Tester.py --DR DATA --save_root OUT --ckpt RUN/best.ckpt

Written to OUT, by default RUN/test: results.json, psnr_by_frame.png, and for each sequence (i is its folder's
number) pred_seq{i}.gif, compare_seq{i}.gif (pose | prediction | truth | error), sheet_seq{i}.png (a contact
sheet) and pred_seq{i}.npz (the frames as arrays); if requested, MP4s and submission.csv.
"""

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which loads for seconds

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np

import utils
from dataloader import Video, load_test_videos
from runtime import files, run_dir
from runtime.cli import log
from runtime.device import select_device, set_threads, tune_malloc
from runtime.progress import Progress
from training import configuration, evaluate, options
from training.checkpoint import load_for_inference
from training.pose_background import resolve_pose_background


def main(argv: list[str] | None = None) -> None:
    """Parse, render, score, write."""
    cli_args = vars(options.parser(options.TESTER).parse_args(argv))
    device = select_device(cli_args.pop("device", None), cli_args.get("gpu", 1))
    model, args = load_for_inference(cli_args["ckpt_path"], device, **cli_args)
    configuration.require_dataset(args, "DR" in cli_args)
    args.save_root = args.save_root or args.ckpt_path.parent / "test"
    run_dir.make_writable(args.save_root, args.DR)
    run_dir.tidy(args.save_root)
    tune_malloc()
    set_threads(args.threads)
    if args.mp4 and not importlib.util.find_spec("av"):
        log("--mp4: PyAV is not installed (pip install av); everything else is written")
        args.mp4 = False

    videos = load_test_videos(args)
    for video in videos:
        folder = args.DR / "test" / "test_label" / str(video.number)
        resolve_pose_background(video.poses, args.pose_background, folder)
    longest = max(len(video.poses) for video in videos)
    title = (f"rendering {len(videos)} sequences",)
    with Progress(total=longest - 1, descriptions=title, unit="frame") as bar:
        evaluate.render(model, videos, args, bar.update)
    with_truth = [video for video in videos if video.truth is not None]
    for video in with_truth:
        evaluate.score(video)
    if args.drift:
        evaluate.score_drift(model, videos, args)
    if args.pose_dropout and with_truth:
        evaluate.score_pose_dropout(model, with_truth, args)
    if args.samples and with_truth:
        evaluate.score_samples(model, with_truth, args)

    print_scores(videos)
    for video in videos:
        write_video(args, video)
    if args.submission:
        files.save(args.save_root / "submission.csv", write_submission, videos)
    write_results(args, videos)  # last: results.json means that everything is written
    log(f"all results are in {args.save_root}")


def averages(videos: list[Video]) -> dict[str, float]:
    """Mean PSNR and SSIM over the videos with scores; empty if there are none."""
    scores = [video.scores for video in videos if video.scores]
    names = [name for name in ("psnr", "ssim") if all(name in s for s in scores)]
    return {name: float(np.mean([s[name] for s in scores])) for name in names if scores}


def print_scores(videos: list[Video]) -> None:
    """Print the result lines of docs/compatibility.md, "Command line", which count sequences from 1."""
    folders = ", ".join(f"sequence{i} is folder {video.number}" for i, video in enumerate(videos, 1))
    log(f"\ntesting {folders}\n\n===== Your Result =====")
    for i, video in enumerate(videos, 1):
        scores = video.scores
        if not scores:
            log(f"no score for testing sequence{i}: no test_gt/{video.number} or GT{video.number}.csv")
            continue
        log(f"PSNR for testing sequence{i}: {scores['psnr']:.3f}")
        if "psnr_forced" in scores:
            drift = f", drift at the end: {scores['drift']:.3f}" if "drift" in scores else ""
            log(f"    teacher-forced: {scores['psnr_forced']:.3f}{drift}")
        for name in ("pose_dropout", "samples"):
            if name in scores:
                log(f"    {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in scores[name].items()))
    if average := averages(videos):
        log(f"AVG: {average['psnr']:.3f}")
        ssim = f"{average['ssim']:.4f}" if "ssim" in average else f"n/a below {utils.SSIM_MIN_SIDE} pixels"
        log(f"SSIM: {ssim}")


def write_results(args, videos: list[Video]) -> None:
    """results.json, with every score, and the plot of PSNR by frame."""
    results = {
        "average": averages(videos),
        "sequences": [
            {"sequence": v.number, "samples": None, **v.scores, "truth": v.truth_source} for v in videos
        ],
        "checkpoint": str(args.ckpt_path),
        "last_epoch": args.last_epoch,
        "z": args.z,
        "fps": videos[0].fps,
    }
    files.write(args.save_root / "results.json", json.dumps(results, indent=1))
    if curves := {f"sequence {v.number}": v.scores["psnr_by_frame"] for v in videos if v.scores}:
        files.save(args.save_root / "psnr_by_frame.png", utils.plot_psnr_by_frame, curves)


def write_video(args, video: Video) -> None:
    """Write one video's frames as .npz, a contact sheet, and the requested GIFs and MP4s."""
    root, i = args.save_root, video.number
    arrays = {"prediction": utils.to_uint8(video.prediction), "pose": video.poses}
    if video.truth is not None:
        arrays["truth"] = utils.to_uint8(video.truth)
    files.save(root / f"pred_seq{i}.npz", lambda path: np.savez_compressed(path, **arrays))
    grids = {
        f"pred_seq{i}": utils.side_by_side(
            {"prediction": arrays["prediction"]}, has_headings=False, fps=video.fps
        ),
        f"compare_seq{i}": evaluate.comparison(video),
    }
    files.save(root / f"sheet_seq{i}.png", utils.save_sheet, grids[f"compare_seq{i}"])
    if video.samples:
        columns = {"pose": video.poses, "truth": arrays["truth"]}
        columns |= {f"sample {n}": utils.to_uint8(sample) for n, sample in enumerate(video.samples, 1)}
        grids[f"samples_seq{i}"] = utils.side_by_side(columns, fps=video.fps)
        files.save(root / f"samples_sheet_seq{i}.png", utils.save_sheet, grids[f"samples_seq{i}"])
    for name, grid in grids.items():
        if args.make_gif:
            files.save(root / f"{name}.gif", utils.save_gif, grid)
        if args.mp4:
            files.save(root / f"{name}.mp4", utils.save_mp4, [grid])


def write_submission(path: Path, videos: list[Video]) -> None:
    """One row per frame of every video: id, then its values 0..255, channel first."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *range(videos[0].prediction[0].numel())])
        frames = (frame for video in videos for frame in utils.to_uint8(video.prediction))
        for row, frame in enumerate(frames):
            writer.writerow([row, *frame.transpose(2, 0, 1).ravel().tolist()])


if __name__ == "__main__":
    cli.run(main)
