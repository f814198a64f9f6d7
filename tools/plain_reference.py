"""The lab's protocol as it reads, with nothing clever: what tools/benchmark.py measures ours against.

    python tools/plain_reference.py --DR DATA --num_workers 4 --steps 10

One frame at a time and every network called for every frame, NCHW float32, Adam as torch has it, a loss read
in every step, and each PNG opened and resized anew in every epoch by a DataLoader. It trains for an epoch, or
for so many steps, and writes nothing. Flags that are not its own are those of Trainer.py.

The networks are those of `modules`; the loops around them are here. Notation as there: B clips of T frames,
`x[t]` a frame, `p[t]` its pose.
"""

import random
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import console  # noqa: E402

if __name__ == "__main__":
    console.quit_on_signals()

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import mse_loss  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.transforms import Compose, Resize, ToTensor  # noqa: E402
from tqdm import tqdm  # noqa: E402

from engine import options  # noqa: E402
from engine.console import UserError  # noqa: E402
from engine.device import select_device  # noqa: E402
from engine.parser import Parser, whole  # noqa: E402
from frame_cache import numbered_frames  # noqa: E402
from modules import VAE_Model  # noqa: E402


class Clips(Dataset):
    """The training split as clips, end to end and in order: item i is frames and poses `(T, 3, H, W)`.

    Args:
        args: `DR, partial, train_vi_len, frame_H, frame_W`.
    """

    def __init__(self, args):
        self.length = args.train_vi_len
        self.transform = Compose([Resize((args.frame_H, args.frame_W)), ToTensor()])
        self.images, self.labels = (
            [entry.path for entry in numbered_frames(args.DR / "train" / f"train_{kind}").values()]
            for kind in ("img", "label")
        )
        self.kept = int(len(self.images) * args.partial)

    def __len__(self) -> int:
        return self.kept // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= len(self):
            raise IndexError(index)
        clip = slice(index * self.length, (index + 1) * self.length)
        return self._read(self.images[clip]), self._read(self.labels[clip])

    def _read(self, paths: list[str]) -> Tensor:
        return torch.stack([self.transform(Image.open(path).convert("RGB")) for path in paths])


def clip_loader(args) -> DataLoader:
    """Batches of clips, each frames and poses `(B, T, 3, H, W)` in [0, 1], by `num_workers` processes.

    Raises:
        UserError: there are too few frames for a batch.
    """
    loader = DataLoader(Clips(args), args.batch_size, num_workers=args.num_workers, drop_last=True)
    if not len(loader):
        needed = args.batch_size * args.train_vi_len
        raise UserError(f"{args.DR / 'train'}: fewer than the {needed} frames of a batch")
    return loader


def memory_of(model: VAE_Model, first_frame: Tensor, first_pose: Tensor) -> tuple:
    """Features of the first frame and its pose, for a decoder fusion that sees them; else nothing."""
    if not model.Decoder_Fusion.sees_first_frame:
        return ()
    return model.frame_transformation(first_frame), model.label_transformation(first_pose)


def clip_loss(model: VAE_Model, frames: Tensor, poses: Tensor, beta: float, teacher_forcing: bool) -> Tensor:
    """Loss of a batch, for each clip the sum over t = 1 .. T-1 of MSE(predicted[t], x[t]) + beta * KL.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].
        beta: weight of the KL.
        teacher_forcing: predict x[t] from x[t-1], else from the model's own prediction of it.
    """
    memory = memory_of(model, frames[:, 0], poses[:, 0])
    last, loss = frames[:, 0], 0.0
    for t in range(1, frames.shape[1]):
        frame_feature = model.frame_transformation(last)
        true_feature = model.frame_transformation(frames[:, t])
        pose_feature = model.label_transformation(poses[:, t])
        z, mu, logvar = model.Gaussian_Predictor(true_feature, pose_feature)
        fused = model.Decoder_Fusion(frame_feature, pose_feature, z, *memory)
        predicted = model.Generator(fused)
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp()) / len(frames)
        loss = loss + mse_loss(predicted, frames[:, t]) + beta * kl
        last = frames[:, t] if teacher_forcing else predicted
    return loss


def training_step(
    model: VAE_Model,
    optimizer: torch.optim.Optimizer,
    frames: Tensor,
    poses: Tensor,
    beta: float,
    teacher_forcing: bool,
) -> float:
    """One update by one batch, see `clip_loss`; returns the loss."""
    loss = clip_loss(model, frames, poses, beta, teacher_forcing)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def render(model: VAE_Model, first_frame: Tensor, poses: Tensor) -> Tensor:
    """Render one video, each frame from the one before, with z = 0, the prior's mean.

    Args:
        model: in eval mode.
        first_frame: `(3, H, W)` in [0, 1].
        poses: `(T, 3, H, W)` in [0, 1].

    Returns:
        `(T, 3, H, W)` on the CPU, the first frame included.
    """
    device = next(model.parameters()).device
    frame = first_frame[None].to(device)
    memory = memory_of(model, frame, poses[:1].to(device))
    size = model.Gaussian_Predictor.latent_size(*first_frame.shape[-2:])
    z = torch.zeros(1, model.N_dim, *size, device=device)
    video = [frame]
    for pose in poses[1:]:
        frame_feature = model.frame_transformation(frame)
        pose_feature = model.label_transformation(pose[None].to(device))
        fused = model.Decoder_Fusion(frame_feature, pose_feature, z, *memory)
        frame = model.Generator(fused)
        video.append(frame)
    return torch.cat(video).cpu()


def main(argv=None) -> None:
    """Train for an epoch, or for `--steps` of it, on one device."""
    parser = Parser(prog="plain_reference.py", description="Train by the lab's protocol, plainly written.")
    parser.add_argument("--steps", type=whole(1), help="steps to make; an epoch without it")
    own, flags = parser.parse_known_args(argv)
    # Nothing is written, but these flags are Trainer's, which has to know where.
    args = options.resolve(options.trainer_parser(), ["--save_root=.", "--arch=lab", *flags])
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
            loss = training_step(model, optimizer, frames, poses, beta=1.0, teacher_forcing=teacher_forcing)
            bar.set_postfix(loss=loss)


if __name__ == "__main__":
    console.run(main)
