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
from engine.device import autocast, keep_pages, select_device
from engine.step import kl_criterion
from modules import VAE_Model

DRIFT_FRAMES = 100  # at the end of a sequence, over which drift is measured
ACTIVE_VARIANCE = 0.01
SHOWN_SAMPLES = 4


def parse(argv=None):
    """The flags, completed by what the checkpoint says of its model, and the checkpoint."""
    parser = options.tester_parser()
    given = parser.given(argv)
    path = options.resolve(parser, argv).ckpt_path
    content = checkpoint.read(path)
    checkpoint.check_model_flags(path, content, given)
    stored = checkpoint.stored_flags(content)
    if not checkpoint.is_ours(content):  # the lab renders in fp32, and its pictures are to be the same here
        stored = stored | {"precision": "fp32"}
    return options.resolve(parser, argv, stored), content


def render(model: VAE_Model, videos: list[Video], precision: str, sample: bool, seed: int) -> list[Tensor]:
    """Generate all sequences together; each `(T, 3, H, W)`, the given first frame included."""
    device = next(model.parameters()).device
    longest = max(len(video.poses) for video in videos)
    # A shorter sequence goes on in its last pose, and what it renders there is cut off.
    poses = torch.stack(
        [to_float(video.poses[np.arange(longest).clip(max=len(video.poses) - 1)]) for video in videos]
    )
    first = torch.stack([to_float(video.frames[0], device) for video in videos])
    generator = torch.Generator(device).manual_seed(seed)
    with autocast(precision, device):
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


def score_drift(
    model: VAE_Model, video: Video, truth: Tensor, precision: str, psnr_by_frame: list[float]
) -> dict:
    """What a rollout loses to frames that were each made from the true last one, in its last frames."""
    device = next(model.parameters()).device
    poses = to_float(video.poses, device)
    with autocast(precision, device):
        forced = model.predict(truth[None, : len(poses)].to(device), poses[None])[0].cpu()
    by_frame = utils.psnr_by_frame(forced, truth[1:]).tolist()
    last = slice(-DRIFT_FRAMES, None)
    return {
        "psnr_forced": float(np.mean(by_frame)),
        "drift": float(np.mean(by_frame[last]) - np.mean(psnr_by_frame[last])),
        "psnr_forced_by_frame": by_frame,
    }


@torch.no_grad()
def posterior_use(model: VAE_Model, video: Video, truth: Tensor) -> dict:
    """How much of z the posterior uses: its active units, all units, and the KL of a frame in nats.

    A unit (a channel at a place) is active if its posterior mean varies over the frames by more than 0.01
    (Burda et al. 2016).
    """
    model.eval()
    device = next(model.parameters()).device
    found = []
    for start in range(1, len(truth), 64):
        frames, poses = (
            truth[start : start + 64].to(device),
            to_float(video.poses[start : start + 64], device),
        )
        features = model.frame_transformation(frames), model.label_transformation(poses)
        found.append(torch.stack(model.Gaussian_Predictor(*features)[1:]))
    mu, logvar = torch.cat(found, dim=1)
    active = mu.var(dim=0) > ACTIVE_VARIANCE
    kl = kl_criterion(mu, logvar, len(mu)).item()
    return {"active units": int(active.sum()), "units": active.numel(), "KL of a frame": kl}


def score_samples(model, videos, truths, args) -> list[tuple[dict, list[Tensor]] | None]:
    """PSNR with z = 0, with one z from the prior, best and mean of N; how much of z is used; some draws.

    None for a sequence whose true frames are not known.
    """
    scored = [(video, truth) for video, truth in zip(videos, truths, strict=True) if truth is not None]
    known, true = zip(*scored, strict=True)

    def draw(sample: bool, seed: int) -> tuple[list[float], list[Tensor]]:
        rendered = render(model, list(known), args.precision, sample, seed)
        psnr = [utils.psnr_by_frame(v[1:], t[1:]).mean().item() for v, t in zip(rendered, true, strict=True)]
        return psnr, rendered

    zero, _ = draw(False, args.seed)
    scores, shown = [], []
    for seed in tqdm(range(args.seed, args.seed + args.samples), desc="samples", ncols=100, leave=False):
        psnr, rendered = draw(True, seed)
        scores.append(psnr)
        if len(shown) < SHOWN_SAMPLES:
            shown.append(rendered)
    draws = np.array(scores)
    names = ("z=0", "one z", f"best of {args.samples}", f"mean of {args.samples}")
    columns = np.stack([zero, draws[0], draws.max(0), draws.mean(0)], axis=1).tolist()
    by_name = {
        video.name: (
            dict(zip(names, values, strict=True)) | posterior_use(model, video, truth),
            [rendered[i] for rendered in shown],
        )
        for i, (video, truth, values) in enumerate(zip(known, true, columns, strict=True))
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
            if "drift" in one:
                print(f"    from true frames: {one['psnr_forced']:.3f}, drift at the end: {one['drift']:.3f}")
        if sampled is not None:
            print("    " + ", ".join(f"{name}: {value:.6g}" for name, value in sampled.items()))
        rows.append({"sequence": number, "folder": video.name, **(one or {}), "samples": sampled})
    known = [one for one in scores if one is not None]
    average = {name: float(np.mean([one[name] for one in known])) for name in ("psnr", "ssim") if known}
    if known:
        print(f"AVG: {average['psnr']:.3f}")
        print(f"SSIM: {average['ssim']:.4f}")
    return {"average": average, "sequences": rows}


def write_videos(
    args, number: int, video: Video, rendered: Tensor, truth: Tensor | None, samples: list[Tensor]
) -> None:
    """A sheet of some frames of one sequence, and the GIFs and MP4s that the flags ask for."""
    predicted = utils.to_uint8(rendered)
    true = None if truth is None else utils.to_uint8(truth)
    compared = utils.comparison(video.poses, predicted, true)
    utils.save_sheet(args.save_root / f"sheet_seq{number}.png", compared)
    shown = {
        f"pred_seq{number}": utils.film({"prediction": predicted}, named=False),
        f"compare_seq{number}": compared,
    }
    if samples:
        columns = {"pose": video.poses, "truth": true}
        columns |= {f"sample {i}": utils.to_uint8(sample) for i, sample in enumerate(samples, 1)}
        shown[f"samples_seq{number}"] = sampled = utils.film(columns)
        utils.save_sheet(args.save_root / f"samples_sheet_seq{number}.png", sampled)
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
    device = select_device(args)
    model = VAE_Model(args)
    checkpoint.load_weights(model, args.ckpt_path, content)
    model.to(device, memory_format=torch.channels_last)

    videos = test_videos(args)
    found = [true_frames(args, video) for video in videos]
    truths = [None if one is None else torch.from_numpy(one[0]).movedim(-1, -3) for one in found]
    rendered = render(model, videos, args.precision, args.z == "sample", args.seed)
    scores = score(rendered, truths)
    if args.drift:
        for video, truth, one in zip(videos, truths, scores, strict=True):
            if one is not None:
                one |= score_drift(model, video, truth, args.precision, one["psnr_by_frame"])
    samples = [None] * len(videos)
    if args.samples and any(scores):
        samples = score_samples(model, videos, truths, args)

    results = report(videos, scores, [one and one[0] for one in samples])
    for row, one in zip(results["sequences"], found, strict=True):
        row["truth"] = one and one[1]
    results |= {"checkpoint": str(args.ckpt_path), "last_epoch": content.get("last_epoch"), "z": args.z}
    (args.save_root / "results.json").write_text(json.dumps(results, indent=1))
    curves = {f"sequence {i}": one["psnr_by_frame"] for i, one in enumerate(scores, 1) if one}
    if curves:
        utils.plot_psnr_by_frame(curves, args.save_root / "psnr_by_frame.png")
    drawn = [one[1] if one else [] for one in samples]
    for number, parts in enumerate(zip(videos, rendered, truths, drawn, strict=True), 1):
        write_videos(args, number, *parts)
    if args.submission:
        write_submission(args.save_root / "submission.csv", rendered)
    print(f"all results are in {args.save_root}")


if __name__ == "__main__":
    console.run(main)
