"""Sequences rendered with a model and scored against their true frames: validation and test."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

import utils
from modules import VAE_Model
from runtime.cuda_graph import Graphed
from runtime.device import autocast
from runtime.progress import Progress
from training.pose_filling import fill_lost_poses
from training.step import kl_criterion
from utils import to_float

DRIFT_FRAMES = 100  # at the end of a sequence, over which drift is measured
ACTIVE_VARIANCE = 0.01
SAMPLES_KEPT = 4  # to look at
FRAMES_AT_ONCE = 64


@dataclass
class Sequence:
    """A video to render: what is given, what is known of the truth, and what became of it.

    Attributes:
        name: of its folder.
        poses: `(T, H, W, 3)` uint8.
        first_frame: `(H, W, 3)` uint8.
        truth: the true frames, `(T, 3, H, W)` in [0, 1], or None.
        truth_source: where the truth was read.
        fill_poses: blank poses in a row that are filled for the networks, see `training.pose_filling`.
        prediction: `(T, 3, H, W)`, the first frame included; not clamped.
        scores: by name, as in results.json.
        samples: predictions with z from the prior.
    """

    name: str
    poses: np.ndarray
    first_frame: np.ndarray
    truth: Tensor | None = None
    truth_source: str | None = None
    fill_poses: int = 0
    prediction: Tensor | None = None
    scores: dict = field(default_factory=dict)
    samples: list[Tensor] = field(default_factory=list)

    def filled_poses(self, length: int | None = None) -> np.ndarray:
        """The poses for the networks; the last one is repeated up to `length`."""
        poses = fill_lost_poses(self.poses, self.fill_poses)
        return poses[np.arange(length or len(poses)).clip(max=len(poses) - 1)]

    def film(self) -> utils.Film:
        """pose | prediction | truth | error, of the sequence after `render`."""
        truth = None if self.truth is None else utils.to_uint8(self.truth)
        return utils.comparison(self.poses, utils.to_uint8(self.prediction), truth)


def generate(
    model: VAE_Model, sequences: list[Sequence], args, sample: bool = False, draw: int = 0, report=None
) -> list[Tensor]:
    """Generate all sequences in one batch; each `(T, 3, H, W)`, the first frame included.

    Args:
        args: `precision, shifts, seed`.
        sample: draw z from the prior, by the seed; z = 0 otherwise.
        draw: number of the sample.
        report: as of `VAE_Model.generate`.
    """
    device = next(model.parameters()).device
    longest = max(len(sequence.poses) for sequence in sequences)
    # A shorter sequence repeats its last pose, and the frames of these poses are cut off.
    poses = torch.stack([to_float(sequence.filled_poses(longest)) for sequence in sequences])
    if device.type == "cuda":
        poses = poses.pin_memory()  # so that a copy of some does not wait for the work on the device
    first_frames = torch.stack([to_float(s.first_frame, device) for s in sequences])
    generator = torch.Generator(device).manual_seed(args.seed + draw)
    wrap_step = Graphed if device.type == "cuda" else None
    with autocast(args.precision, device):
        videos = model.generate(
            first_frames, poses, sample, generator,
            shifts=args.shifts, wrap_step=wrap_step, report=report,
        )  # fmt: skip
    return [video[: len(s.poses)] for video, s in zip(videos, sequences, strict=True)]


def render(model: VAE_Model, sequences: list[Sequence], args, report=None) -> None:
    """`generate` with z as `args.z` says, into each sequence's `prediction`."""
    videos = generate(model, sequences, args, sample=args.z == "sample", report=report)
    for sequence, video in zip(sequences, videos, strict=True):
        sequence.prediction = video


def score(sequence: Sequence, ssim: bool = True) -> None:
    """PSNR and SSIM over the predicted frames (the first frame is given), into `scores`; needs the truth.

    Pictures with a side below `utils.SSIM_LEAST_SIDE` have no SSIM.
    """
    predicted, truth = sequence.prediction[1:], sequence.truth[1:]
    by_frame = {"psnr": utils.psnr_by_frame(predicted, truth)}
    if ssim and min(truth.shape[-2:]) >= utils.SSIM_LEAST_SIDE:
        by_frame["ssim"] = utils.ssim_by_frame(predicted, truth)
    for name, values in by_frame.items():
        sequence.scores[f"{name}_by_frame"] = values.tolist()
        sequence.scores[name] = sum(values.tolist()) / len(values)


def validate(model: VAE_Model, sequence: Sequence, args, epoch: int, lr: float, pictures: bool) -> dict:
    """Render the validation video and print its PSNR; returns the validation's part of the epoch's record.

    Args:
        args: `precision, shifts, z, seed, save_root`.
        epoch, lr: to print.
        pictures: write the GIF and the plot of this validation to `save_root`.
    """
    frames = len(sequence.poses) - 1
    descriptions = (f"(val) Epoch {epoch}, lr:{lr:.2e}",)
    with Progress(total=frames, descriptions=descriptions, unit="frame") as bar:
        render(model, [sequence], args, bar.update)
        score(sequence, ssim=False)
        loss = (sequence.prediction - sequence.truth)[1:].square().mean(dim=(1, 2, 3)).sum().item()
        psnr, by_frame = sequence.scores["psnr"], sequence.scores["psnr_by_frame"]
        bar.set_postfix(loss=loss, refresh=False)
    print(f"AVG PSNR: {psnr}")
    use = posterior_use(model, sequence)
    if pictures:
        utils.save_gif(args.save_root / f"val_epoch={epoch}.gif", sequence.film())
        plot = args.save_root / f"val_psnr_epoch={epoch}.png"
        utils.plot_psnr_by_frame({f"epoch {epoch}": by_frame}, plot)
    return {
        "val_loss": loss,
        "val_psnr": psnr,
        "psnr_by_frame": by_frame,
        "val_kl": use["KL of a frame"],
        "active_units": use["active units"],
    }


def score_drift(model: VAE_Model, sequence: Sequence, args) -> None:
    """PSNR of frames that are predicted from the true last one, and what the rollout loses against them.

    The drift is that loss over the last `DRIFT_FRAMES` frames; a shorter sequence has none.
    """
    device = next(model.parameters()).device
    truth, poses = sequence.truth[None].to(device), to_float(sequence.filled_poses()[None], device)
    with autocast(args.precision, device):
        forced = model.predict(truth, poses, args.shifts)[0].cpu()
    by_frame = utils.psnr_by_frame(forced, sequence.truth[1:]).tolist()
    sequence.scores |= {"psnr_forced": float(np.mean(by_frame)), "psnr_forced_by_frame": by_frame}
    if len(by_frame) >= DRIFT_FRAMES:
        end = slice(-DRIFT_FRAMES, None)
        drift = np.mean(by_frame[end]) - np.mean(sequence.scores["psnr_by_frame"][end])
        sequence.scores["drift"] = float(drift)


def score_pose_dropout(model: VAE_Model, sequences: list[Sequence], args) -> None:
    """PSNR with z = 0 where a fraction of the poses is blank: over all frames, and over these.

    Args:
        args: `pose_dropout`, and those of `generate`.
        sequences: rendered and scored with all poses.
    """
    blanked = []
    for index, sequence in enumerate(sequences):
        lost = np.random.default_rng([args.seed, index]).random(len(sequence.poses)) < args.pose_dropout
        lost[0] = False
        poses = np.where(lost[:, None, None, None], np.uint8(255), sequence.poses)
        blanked.append((replace(sequence, poses=poses), lost[1:]))
    whole = generate(model, sequences, args)
    videos = generate(model, [sequence for sequence, _ in blanked], args)
    for sequence, all_poses, video, (_, lost) in zip(sequences, whole, videos, blanked, strict=True):
        before, after = (utils.psnr_by_frame(v[1:], sequence.truth[1:]).numpy() for v in (all_poses, video))
        sequence.scores["pose_dropout"] = {
            "blank poses": int(lost.sum()),
            "PSNR": float(after.mean()),
            "loss": float((before - after).mean()),
            "loss in the frames of blank poses": float((before - after)[lost].mean()) if lost.any() else 0.0,
        }


def posterior_use(model: VAE_Model, sequence: Sequence) -> dict:
    """How much of z the posterior uses: active units, all units, and the KL of a frame in nats.

    A unit (a channel at a position) is active if its posterior mean varies over the frames by more than 0.01
    (Burda et al. 2016, section 2).
    """
    device = next(model.parameters()).device
    parts = []
    for start in range(1, len(sequence.truth), FRAMES_AT_ONCE):
        part = slice(start, start + FRAMES_AT_ONCE)
        frames, poses = sequence.truth[part].to(device), to_float(sequence.poses[part], device)
        parts.append(torch.stack(model.posterior(frames, poses)))
    mu, logvar = torch.cat(parts, dim=1)
    active = mu.var(dim=0) > ACTIVE_VARIANCE
    kl = kl_criterion(mu, logvar, len(mu)).item()
    return {"active units": int(active.sum()), "units": active.numel(), "KL of a frame": kl}


def score_samples(model: VAE_Model, sequences: list[Sequence], args) -> None:
    """PSNR with z = 0, with one z from the prior, best and mean of N; the use of z; some samples.

    Args:
        args: `samples`, which is N, and those of `generate`.
        sequences: with their truth.
    """

    def psnr(videos: list[Tensor]) -> list[float]:
        pairs = zip(videos, sequences, strict=True)
        return [utils.psnr_by_frame(video[1:], s.truth[1:]).mean().item() for video, s in pairs]

    zero = psnr(generate(model, sequences, args))
    scores = []
    for index in Progress(range(args.samples), descriptions=("samples",), leave=False):
        videos = generate(model, sequences, args, sample=True, draw=index)
        scores.append(psnr(videos))
        if index < SAMPLES_KEPT:
            for sequence, video in zip(sequences, videos, strict=True):
                sequence.samples.append(video)
    for sequence, z0, draws in zip(sequences, zero, np.array(scores).T, strict=True):
        sequence.scores["samples"] = {
            "z=0": z0,
            "one z": float(draws[0]),
            f"best of {args.samples}": float(draws.max()),
            f"mean of {args.samples}": float(draws.mean()),
            **posterior_use(model, sequence),
        }
