"""Validation and test: generates videos and scores them against ground truth."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import utils
from dataloader import Video
from modules import VAE_Model
from runtime import files
from runtime.cli import log
from runtime.cuda_graph import Graphed
from runtime.device import autocast
from runtime.progress import Progress
from utils import to_float, to_rgb

from .losses import kl_criterion
from .pose_filling import fill_missing_poses

DRIFT_FRAMES = 100  # at the end of a video, over which drift is measured
ACTIVE_VARIANCE = 0.01
MAX_SAMPLES_SHOWN = 4
FRAME_CHUNK = 64


def generate(
    model: VAE_Model, videos: list[Video], args, sample: bool = False, draw: int = 0, report=None
) -> list[Tensor]:
    """Generate all videos in one batch; each `(T, 3, H, W)`, the first frame included.

    Args:
        args: `precision, tta, fill_poses, pose_background, seed`.
        sample: draw z from the prior, sample number `draw` of the seed, instead of z = 0.
        report: see `VAE_Model.generate`.
    """
    device = next(model.parameters()).device
    longest = max(len(video.poses) for video in videos)
    # A shorter video repeats its last pose; the frames of these poses are cut off.
    repeated = np.arange(longest)
    filled = [fill_missing_poses(video.poses, args.fill_poses, args.pose_background) for video in videos]
    poses = torch.stack([to_float(poses[repeated.clip(max=len(poses) - 1)]) for poses in filled])
    first_frames = torch.stack([to_float(video.first_frame, device) for video in videos])
    generator = torch.Generator(device).manual_seed(args.seed + draw)
    settings = {"tta": args.tta, "wrap_step": Graphed if device.type == "cuda" else None, "report": report}
    with autocast(args.precision, device):
        predicted = model.generate(first_frames, poses, sample, generator, **settings)
    return [frames[: len(video.poses)] for frames, video in zip(predicted, videos, strict=True)]


def render(model: VAE_Model, videos: list[Video], args, report=None) -> None:
    """`generate` with z by `args.z`, into the `prediction` of each video."""
    predicted = generate(model, videos, args, sample=args.z == "sample", report=report)
    for video, prediction in zip(videos, predicted, strict=True):
        video.prediction = prediction


def score(video: Video, ssim: bool = True) -> None:
    """PSNR and SSIM over the predicted frames, into `scores`; no SSIM below `utils.SSIM_MIN_SIDE`."""
    predicted, truth = video.prediction[1:], video.truth[1:]
    by_frame = {"psnr": utils.psnr_by_frame(predicted, truth)}
    if ssim and min(truth.shape[-2:]) >= utils.SSIM_MIN_SIDE:
        by_frame["ssim"] = utils.ssim_by_frame(predicted, truth)
    for name, values in by_frame.items():
        video.scores[f"{name}_by_frame"] = values.tolist()
        video.scores[name] = sum(values.tolist()) / len(values)


def comparison(video: Video) -> utils.VideoGrid:
    """pose | prediction | truth | error, of a rendered video."""
    truth = None if video.truth is None else utils.to_uint8(video.truth)
    return utils.comparison(video.poses, utils.to_uint8(video.prediction), truth, video.fps)


def validate(model: VAE_Model, video: Video, args, epoch: int, lr: float, write_images: bool) -> dict:
    """Render the validation video and print its PSNR; returns the validation's part of the epoch's record.

    Args:
        epoch, lr: to print.
        write_images: write the GIF and the plot of this validation to `args.save_root`.
    """
    descriptions = (f"(val) Epoch {epoch}, lr:{lr:.3g}",)
    with Progress(total=len(video.poses) - 1, descriptions=descriptions, unit="frame") as bar:
        render(model, [video], args, bar.update)
        score(video, ssim=False)
        loss = (video.prediction - video.truth)[1:].square().mean(dim=(1, 2, 3)).sum().item()
        psnr, by_frame = video.scores["psnr"], video.scores["psnr_by_frame"]
        bar.set_postfix(loss=loss, refresh=False)
    log(f"AVG PSNR: {psnr}")
    use = posterior_use(model, video)
    if write_images:
        files.save(args.save_root / f"val_epoch={epoch}.gif", utils.save_gif, comparison(video))
        plot = args.save_root / f"val_psnr_epoch={epoch}.png"
        files.save(plot, utils.plot_psnr_by_frame, {f"epoch {epoch}": by_frame})
    scores = {"val_loss": loss, "val_psnr": psnr, "psnr_by_frame": by_frame}
    return scores | {"val_kl": use["kl_per_frame"], "active_units": use["active_units"]}


def score_drift(model: VAE_Model, videos: list[Video], args) -> None:
    """Score teacher-forced PSNR, and drift: how much lower the rollout's PSNR is at the end of the video.

    Both have the same z. The drift is the loss over the last `DRIFT_FRAMES` frames; a shorter video has none.
    `videos` come from `render`; videos without ground truth get no score.
    """
    device = next(model.parameters()).device
    for index, video in enumerate(videos):
        if video.truth is None:
            continue
        poses = fill_missing_poses(video.poses, args.fill_poses, args.pose_background)
        truth, poses = video.truth[None].to(device), to_float(poses[None], device)
        z = None
        if args.z == "sample":  # drawn for all videos together, as in `VAE_Model.generate`
            generator = torch.Generator(device).manual_seed(args.seed)
            shape = len(videos), *model.latent_shape(*truth.shape[-2:])
            draws = [torch.randn(shape, generator=generator, device=device)[index] for _ in poses[0, 1:]]
            z = torch.stack([draws[0], *draws])[None]
        with autocast(args.precision, device):
            forced = model.predict(truth, poses, z, args.tta)[0].cpu()
        by_frame = utils.psnr_by_frame(forced, video.truth[1:]).tolist()
        video.scores |= {"psnr_forced": float(np.mean(by_frame)), "psnr_forced_by_frame": by_frame}
        if len(by_frame) >= DRIFT_FRAMES:
            end = slice(-DRIFT_FRAMES, None)
            drift = np.mean(by_frame[end]) - np.mean(video.scores["psnr_by_frame"][end])
            video.scores["drift"] = float(drift)


def score_pose_dropout(model: VAE_Model, videos: list[Video], args) -> None:
    """Score the PSNR loss (z = 0) from blanking a fraction of poses, over all and over blanked frames.

    `videos` have their truth.
    """
    blanked, masks = [], []
    for index, video in enumerate(videos):
        is_blank = np.random.default_rng([args.seed, index]).random(len(video.poses)) < args.pose_dropout
        is_blank[0] = False
        poses = video.poses.copy()
        poses[is_blank] = to_rgb(args.pose_background)
        blanked.append(replace(video, poses=poses))
        masks.append(is_blank[1:])
    predicted = generate(model, videos, args), generate(model, blanked, args)
    for video, is_blank, *both in zip(videos, masks, *predicted, strict=True):
        before, after = (utils.psnr_by_frame(frames[1:], video.truth[1:]).numpy() for frames in both)
        lost = before - after
        video.scores["pose_dropout"] = {
            "num_blank": int(is_blank.sum()),
            "psnr": float(after.mean()),
            "psnr_loss": float(lost.mean()),
            "psnr_loss_blank": float(lost[is_blank].mean()) if is_blank.any() else 0.0,
        }


def posterior_use(model: VAE_Model, video: Video) -> dict:
    """Posterior statistics: active units, total units, and KL per frame in nats.

    A unit (a channel at a position) is active if its posterior mean has a variance over the frames of more
    than 0.01 (Burda et al. 2016, section 2).
    """
    device = next(model.parameters()).device
    parts = []
    for start in range(1, len(video.truth), FRAME_CHUNK):
        part = slice(start, start + FRAME_CHUNK)
        frames, poses = video.truth[part].to(device), to_float(video.poses[part], device)
        parts.append(torch.stack(model.posterior(frames, poses)))
    mu, logvar = torch.cat(parts, dim=1)
    is_active = mu.var(dim=0) > ACTIVE_VARIANCE
    kl = kl_criterion(mu, logvar, len(mu)).item()
    return {"active_units": int(is_active.sum()), "units": is_active.numel(), "kl_per_frame": kl}


def score_samples(model: VAE_Model, videos: list[Video], args) -> None:
    """Score z = 0, one sample of z, and best and mean of `args.samples`; adds posterior statistics.

    `videos` have their truth.
    """

    def psnr(predicted: list[Tensor]) -> list[float]:
        pairs = zip(predicted, videos, strict=True)
        return [utils.psnr_by_frame(frames[1:], video.truth[1:]).mean().item() for frames, video in pairs]

    zero = psnr(generate(model, videos, args))
    scores = []
    for index in Progress(range(args.samples), descriptions=("samples",), leave=False):
        predicted = generate(model, videos, args, sample=True, draw=index)
        scores.append(psnr(predicted))
        if index < MAX_SAMPLES_SHOWN:
            for video, frames in zip(videos, predicted, strict=True):
                video.samples.append(frames)
    for video, z0, draws in zip(videos, zero, np.array(scores).T, strict=True):
        video.scores["samples"] = {
            "psnr_z0": z0,
            "psnr_one_sample": float(draws[0]),
            f"psnr_best_of_{args.samples}": float(draws.max()),
            f"psnr_mean_of_{args.samples}": float(draws.mean()),
            **posterior_use(model, video),
        }
