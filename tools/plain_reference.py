"""The course lab's protocol as a plain loop: the baseline of tools/benchmark.py and the oracle of the tests.

    python -m tools.plain_reference --DR DATA --steps 10

One frame at a time, every network called for every frame, NCHW float32, torch's default Adam, a loss read in
every step, and each PNG opened and resized again in every epoch. It trains for one epoch, or for `--steps`
steps of it, and writes nothing. All other flags are those of Trainer.py.

The networks are those of `modules`; only the loops are written here. Notation as in modules/cvae.py: B clips
of T frames, `x[t]` a frame, `p[t]` its pose.
"""

import random
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which takes seconds to load

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Resize, ToTensor
from tqdm import tqdm

from image_cache import numbered_frames
from modules import VAE_Model
from runtime.device import select_device
from runtime.parser import Parser, whole
from training import options


class Clips(Dataset):
    """The training split, cut into clips in order: item i is frames and poses, `(T, 3, H, W)` in [0, 1]."""

    def __init__(self, args):
        self.length = args.train_vi_len
        self.transform = Compose([Resize((args.frame_H, args.frame_W)), ToTensor()])
        folders = args.DR / "train" / "train_img", args.DR / "train" / "train_label"
        self.images, self.labels = ([file.path for file in numbered_frames(f).values()] for f in folders)
        self.clip_count = int(len(self.images) * args.partial) // self.length

    def __len__(self) -> int:
        return self.clip_count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clip = slice(index * self.length, (index + 1) * self.length)
        return self._read(self.images[clip]), self._read(self.labels[clip])

    def _read(self, paths: list[str]) -> Tensor:
        return torch.stack([self.transform(Image.open(path).convert("RGB")) for path in paths])


def clip_loader(args) -> DataLoader:
    """Batches of clips, `(B, T, 3, H, W)` each of frames and poses, read by `num_workers` processes.

    Raises:
        UserError: there are too few frames for one batch.
    """
    loader = DataLoader(Clips(args), args.batch_size, num_workers=args.num_workers, drop_last=True)
    if not len(loader):
        too_few = f"fewer than the {args.batch_size * args.train_vi_len} frames of one batch"
        raise cli.UserError(f"{args.DR / 'train'}: {too_few}; lower --batch_size or --train_vi_len")
    return loader


def first_frame_inputs(model: VAE_Model, frame: Tensor, pose: Tensor) -> tuple[tuple, tuple]:
    """What Decoder_Fusion and Generator see of the first frame in every step; nothing in `lab` networks."""
    if not model.sees_first_frame:
        return (), ()
    features = model.frame_transformation(frame), model.label_transformation(pose)
    return (model.Decoder_Fusion.from_first_frame(*features),), (frame,)


def next_frame(model: VAE_Model, frame: Tensor, pose_feature: Tensor, z: Tensor, first) -> Tensor:
    """x[t] `(B, 3, H, W)` from x[t-1], the feature of p[t], z[t], and the result of `first_frame_inputs`."""
    for_fusion, for_generator = first
    fused = model.Decoder_Fusion(model.frame_transformation(frame), pose_feature, z, *for_fusion)
    return model.Generator(fused, *for_generator)


def training_rollout(model: VAE_Model, frames: Tensor, poses: Tensor, teacher_forcing: bool):
    """Predict x[1] .. x[T-1] of clips `(B, T, 3, H, W)` in [0, 1], z[t] drawn from the posterior.

    Each step starts from the true frame before it with `teacher_forcing`, else from the predicted one.

    Returns:
        predicted, mu, logvar: lists of T-1 tensors, `(B, 3, H, W)` and (the posterior) `(B, N_dim, h, w)`.
    """
    first = first_frame_inputs(model, frames[:, 0], poses[:, 0])
    last, predicted, mus, logvars = frames[:, 0], [], [], []
    for t in range(1, frames.shape[1]):
        true_feature = model.frame_transformation(frames[:, t])
        pose_feature = model.label_transformation(poses[:, t])
        z, mu, logvar = model.Gaussian_Predictor(true_feature, pose_feature)
        predicted.append(next_frame(model, last, pose_feature, z, first))
        mus.append(mu)
        logvars.append(logvar)
        last = frames[:, t] if teacher_forcing else predicted[-1]
    return predicted, mus, logvars


def clip_loss(model: VAE_Model, frames: Tensor, poses: Tensor, beta: float, teacher_forcing: bool) -> Tensor:
    """Loss of a batch: the sum over t of MSE + beta * KL, both means over the clips."""
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
    """Render one video `(T, 3, H, W)` with a model in eval mode, each frame from the one before.

    Args:
        first_frame, poses: `(3, H, W)` and `(T, 3, H, W)` in [0, 1].
        z: latents `(T, N_dim, h, w)`, of which the first is not used; by default 0, the mean of the prior.
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


def main(argv=None) -> None:
    """Train on one device for an epoch, or for `--steps` steps of it."""
    parser = Parser(prog="plain_reference.py", description="Train with a plain loop, as the course lab did.")
    parser.add_argument("--steps", type=whole(1), help="number of training steps; without it one epoch")
    own, flags = parser.parse_known_args(argv)
    # Nothing is written, but the flags are those of Trainer.py, which requires a folder.
    args = options.trainer_args(["--save_root=.", "--recipe=lab", *flags])
    device = select_device(args)
    torch.manual_seed(args.seed)
    model = VAE_Model(args).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    teacher_forcing = random.Random(args.seed).random() < args.tfr
    loader = clip_loader(args)
    steps = min(len(loader), own.steps or len(loader))
    with tqdm(islice(loader, steps), total=steps, ncols=140, desc="(train) plain reference") as bar:
        for frames, poses in bar:
            frames, poses = frames.to(device), poses.to(device)
            bar.set_postfix(loss=training_step(model, optimizer, frames, poses, 1.0, teacher_forcing))


if __name__ == "__main__":
    cli.run(main)
