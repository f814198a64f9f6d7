"""The course's protocol as a plain loop: the baseline of tools/benchmark.py and the oracle of the tests.

It processes one frame at a time in NCHW float32, calls `loss.item()` in every step, and reloads each PNG in
every epoch. The networks come from `modules`. Notation as in modules/cvae.py: B clips of T
frames, `x[t]` a frame, `p[t]` its pose.
"""

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Resize, ToTensor

from images import numbered_images
from modules import VAE_Model
from runtime.cli import UserError


class Clips(Dataset):
    """The training split as consecutive clips: item i is (frames, poses), each `(T, 3, H, W)` in [0, 1]."""

    def __init__(self, args):
        self.length = args.train_vi_len
        self.transform = Compose([Resize((args.frame_H, args.frame_W)), ToTensor()])
        folders = args.DR / "train" / "train_img", args.DR / "train" / "train_label"
        self.images, self.labels = ([file.path for file in numbered_images(f).values()] for f in folders)
        self.num_clips = int(len(self.images) * args.partial) // self.length

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clip = slice(index * self.length, (index + 1) * self.length)
        return self._read(self.images[clip]), self._read(self.labels[clip])

    def _read(self, paths: list[str]) -> Tensor:
        return torch.stack([self.transform(Image.open(path).convert("RGB")) for path in paths])


def clip_loader(args) -> DataLoader:
    """A loader of (frames, poses) batches, each `(B, T, 3, H, W)`, with `num_workers` workers.

    Raises:
        UserError: there are too few frames for one batch.
    """
    loader = DataLoader(Clips(args), args.batch_size, num_workers=args.num_workers, drop_last=True)
    if not len(loader):
        too_few = f"fewer than the {args.batch_size * args.train_vi_len} frames of one batch"
        raise UserError(f"{args.DR / 'train'}: {too_few}; lower --batch_size or --train_vi_len")
    return loader


def first_frame_inputs(model: VAE_Model, frame: Tensor, pose: Tensor) -> tuple[tuple, tuple]:
    """What Decoder_Fusion and Generator see of the first frame in every step; empty for `lab`."""
    if not model.uses_reference:
        return (), ()
    features = model.frame_transformation(frame), model.label_transformation(pose)
    return (model.Decoder_Fusion.reference_features(*features),), (frame,)


def next_frame(model: VAE_Model, frame: Tensor, pose_feature: Tensor, z: Tensor, first) -> Tensor:
    """x[t] `(B, 3, H, W)` from x[t-1], the feature of p[t], z[t], and `first_frame_inputs`."""
    for_fusion, for_generator = first
    fused = model.Decoder_Fusion(model.frame_transformation(frame), pose_feature, z, *for_fusion)
    return model.Generator(fused, *for_generator)


def training_rollout(model: VAE_Model, frames: Tensor, poses: Tensor, teacher_forcing: bool):
    """Predict x[1] .. x[T-1] of clips `(B, T, 3, H, W)` in [0, 1], with z[t] from the posterior.

    Each step is conditioned on the true previous frame with `teacher_forcing`, else on the predicted one.

    Returns:
        predicted, mu, logvar: lists of T-1 tensors, `(B, 3, H, W)` and (the posterior) `(B, N_dim, h, w)`.
    """
    first = first_frame_inputs(model, frames[:, 0], poses[:, 0])
    previous, predicted, mus, logvars = frames[:, 0], [], [], []
    for t in range(1, frames.shape[1]):
        true_feature = model.frame_transformation(frames[:, t])
        pose_feature = model.label_transformation(poses[:, t])
        z, mu, logvar = model.Gaussian_Predictor(true_feature, pose_feature)
        predicted.append(next_frame(model, previous, pose_feature, z, first))
        mus.append(mu)
        logvars.append(logvar)
        previous = frames[:, t] if teacher_forcing else predicted[-1]
    return predicted, mus, logvars


def clip_loss(model: VAE_Model, frames: Tensor, poses: Tensor, beta: float, teacher_forcing: bool) -> Tensor:
    """Loss of a batch: MSE + beta * KL, summed over t, means over the clips."""
    loss, rollout = 0.0, training_rollout(model, frames, poses, teacher_forcing)
    for t, (predicted, mu, logvar) in enumerate(zip(*rollout, strict=True), start=1):
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp()) / len(frames)
        loss = loss + mse_loss(predicted, frames[:, t]) + beta * kl
    return loss


def training_step(model, optimizer, frames: Tensor, poses: Tensor, beta: float, teacher_forcing: bool):
    """One update from one batch, see `clip_loss`; returns the loss as a number."""
    loss = clip_loss(model, frames, poses, beta, teacher_forcing)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def render(model: VAE_Model, first_frame: Tensor, poses: Tensor, z: Tensor | None = None) -> Tensor:
    """Generate one video `(T, 3, H, W)` autoregressively; the model is in eval mode.

    Args:
        first_frame, poses: `(3, H, W)` and `(T, 3, H, W)` in [0, 1].
        z: latents `(T, N_dim, h, w)`; `z[0]` is not used. By default 0, the prior's mean.
    """
    device = next(model.parameters()).device
    frame, poses = first_frame[None].to(device), poses.to(device)
    if z is None:
        z = torch.zeros(len(poses), *model.latent_shape(*first_frame.shape[-2:]), device=device)
    first = first_frame_inputs(model, frame, poses[:1])
    video = [frame]
    for t in range(1, len(poses)):
        pose_feature = model.label_transformation(poses[t : t + 1])
        frame = next_frame(model, frame, pose_feature, z[t : t + 1], first)
        video.append(frame)
    return torch.cat(video).cpu()
