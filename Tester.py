"""Render the test sequences with a checkpoint, and score them where the truth is known.

    python Tester.py --DR DATA --save_root OUT --ckpt RUN/best.ckpt

Written to OUT: results.json, psnr_by_frame.png, and for each sequence pred_seq{i}.gif (the video),
compare_seq{i}.gif (pose | prediction | truth | error) and sheet_seq{i}.png (some frames of it); by flags
MP4s and submission.csv, too.
"""

from engine import console

if __name__ == "__main__":
    console.quit_on_signals()  # before torch, which takes seconds to load

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import utils
from dataloader import Video, test_videos, to_float, true_frames
from engine import checkpoint, options
from engine.device import keep_pages, select_devices
from frame_cache import DataError
from modules import VAE_Model


def parse(argv=None):
    """The flags, completed by what the checkpoint says of its model, and the checkpoint."""
    parser = options.tester_parser()
    given = parser.given(argv)
    path = options.resolve(parser, argv).ckpt_path
    content = checkpoint.read(path)
    checkpoint.check_model_flags(path, content, given)
    return options.resolve(parser, argv, content.get("args")), content


def render(model: VAE_Model, videos: list[Video], sample: bool, seed: int) -> list[Tensor]:
    """Generate all sequences together; each `(T, 3, H, W)`, the given first frame included."""
    device = next(model.parameters()).device
    longest = max(len(video.poses) for video in videos)
    # A shorter sequence goes on in its last pose, and what it renders there is cut off.
    poses = torch.stack(
        [to_float(video.poses[np.arange(longest).clip(max=len(video.poses) - 1)]) for video in videos]
    )
    first = torch.stack([to_float(video.frames[0], device) for video in videos])
    generator = torch.Generator(device).manual_seed(seed)
    rendered = model.generate(first, poses, sample, generator)
    return [one[: len(video.poses)] for one, video in zip(rendered, videos, strict=True)]


def score(rendered: list[Tensor], truths: list[Tensor | None]) -> list[dict | None]:
    """PSNR and SSIM of the predicted frames (the first is given); None where there is no truth."""
    scores = []
    for video, truth in zip(rendered, truths, strict=True):
        if truth is None:
            scores.append(None)
            continue
        psnr, ssim = utils.psnr_by_frame(video[1:], truth[1:]), utils.ssim_by_frame(video[1:], truth[1:])
        scores.append(
            {
                "psnr": psnr.mean().item(),
                "ssim": ssim.mean().item(),
                "psnr_by_frame": psnr.tolist(),
                "ssim_by_frame": ssim.tolist(),
            }
        )
    return scores


def score_samples(model, videos, truths, args) -> list[dict | None]:
    """PSNR with z = 0, with one z from the prior, and the best and mean of N, for each sequence."""
    scored = [(video, truth) for video, truth in zip(videos, truths, strict=True) if truth is not None]
    known, true = zip(*scored, strict=True)

    def mean_psnr(sample: bool, seed: int) -> list[float]:
        rendered = render(model, list(known), sample, seed)
        return [utils.psnr_by_frame(v[1:], t[1:]).mean().item() for v, t in zip(rendered, true, strict=True)]

    zero = mean_psnr(False, args.seed)
    seeds = tqdm(range(args.seed, args.seed + args.samples), desc="samples", ncols=100, leave=False)
    draws = np.array([mean_psnr(True, seed) for seed in seeds])
    columns = zip(zero, draws[0], draws.max(0), draws.mean(0), strict=True)
    names = ("z=0", "one z", f"best of {args.samples}", f"mean of {args.samples}")
    by_name = {
        video.name: {name: float(value) for name, value in zip(names, values, strict=True)}
        for video, values in zip(known, columns, strict=True)
    }
    return [by_name.get(video.name) for video in videos]


def report(videos: list[Video], scores: list[dict | None], samples: list[dict | None]) -> dict:
    """Print the lab's result lines; returns what results.json holds of them."""
    print("\n===== Your Result =====")
    rows = []
    for number, (video, one, sampled) in enumerate(zip(videos, scores, samples, strict=True), 1):
        if one is None:
            print(f"no score for testing sequence{number}: its true frames are not there")
        else:
            print(f"PSNR for testing sequence{number}: {one['psnr']:.3f}")
        if sampled is not None:
            print("    " + ", ".join(f"{name}: {value:.3f}" for name, value in sampled.items()))
        rows.append({"sequence": number, "folder": video.name, **(one or {}), "samples": sampled})
    known = [one for one in scores if one is not None]
    average = {name: float(np.mean([one[name] for one in known])) for name in ("psnr", "ssim") if known}
    if known:
        print(f"AVG: {average['psnr']:.3f}")
        print(f"SSIM: {average['ssim']:.4f}")
    return {"average": average, "sequences": rows}


def write_videos(args, number: int, video: Video, rendered: Tensor, truth: Tensor | None) -> None:
    """A sheet of some frames of one sequence, and the GIFs and MP4s that the flags ask for."""
    predicted = utils.to_uint8(rendered)
    true = None if truth is None else utils.to_uint8(truth)
    compared = utils.comparison(video.poses, predicted, true)
    utils.save_sheet(args.save_root / f"sheet_seq{number}.png", compared)
    shown = {
        f"pred_seq{number}": utils.film({"prediction": predicted}, named=False),
        f"compare_seq{number}": compared,
    }
    for name, pictures in shown.items():
        if args.make_gif:
            utils.save_gif(args.save_root / f"{name}.gif", pictures)
        if args.mp4:
            utils.save_mp4(args.save_root / f"{name}.mp4", pictures)


def write_submission(path: Path, rendered: list[Tensor]) -> None:
    """Every frame of every sequence, one row each: id, then its values 0..255, channel first."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *range(rendered[0][0].numel())])
        frames = (frame for video in rendered for frame in utils.to_uint8(video))
        for row, frame in enumerate(frames):
            writer.writerow([row, *frame.transpose(2, 0, 1).ravel().tolist()])


def main(argv=None) -> None:
    """Parse, render, score, write."""
    args, content = parse(argv)
    args.save_root.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.save_root).close()
    keep_pages()
    device = select_devices(args)[0]
    model = VAE_Model(args)
    checkpoint.load_weights(model, args.ckpt_path, content)
    model.to(device, memory_format=torch.channels_last)

    videos = test_videos(args)
    found = [true_frames(args, video) for video in videos]
    truths = [None if one is None else torch.from_numpy(one[0]).movedim(-1, -3) for one in found]
    rendered = render(model, videos, args.z == "sample", args.seed)
    scores = score(rendered, truths)
    samples = [None] * len(videos)
    if args.samples and any(scores):
        samples = score_samples(model, videos, truths, args)

    results = report(videos, scores, samples)
    for row, one in zip(results["sequences"], found, strict=True):
        row["truth"] = one and one[1]
    results |= {"checkpoint": str(args.ckpt_path), "last_epoch": content.get("last_epoch"), "z": args.z}
    (args.save_root / "results.json").write_text(json.dumps(results, indent=1))
    curves = {f"sequence {i}": one["psnr_by_frame"] for i, one in enumerate(scores, 1) if one}
    if curves:
        utils.plot_psnr_by_frame(curves, args.save_root / "psnr_by_frame.png")
    for number, parts in enumerate(zip(videos, rendered, truths, strict=True), 1):
        write_videos(args, number, *parts)
    if args.submission:
        write_submission(args.save_root / "submission.csv", rendered)
    print(f"all results are in {args.save_root}")


if __name__ == "__main__":
    console.run(main, DataError)
