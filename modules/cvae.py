"""The conditional VAE: how the five networks roll out a video, in training and in generation.

Notation: B clips, T frames, `x[t]` a frame, `p[t]` its pose image. Whatever does not depend on the model's
own output is computed for all time steps at once, time folded into the batch: `(T * B, C, H, W)`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import lab, unet
from .generation import POSE_CHUNK, ShiftTTA, StreamingRollout
from .shared_weights import shared_gradients

ARCHITECTURES = {"lab": lab, "unet": unet}


def fold_time(clips: Tensor) -> Tensor:
    """`(B, T, C, H, W)` -> `(T * B, C, H, W)`."""
    return clips.transpose(0, 1).flatten(0, 1)


def unfold_time(folded: Tensor, batch_size: int) -> Tensor:
    """`(T * B, C, H, W)` -> `(B, T, C, H, W)`."""
    return folded.unflatten(0, (-1, batch_size)).transpose(0, 1)


class Reference(NamedTuple):
    """The given first frame of each clip, which the `unet` networks see in every step."""

    frame: Tensor  # (B, 3, H, W)
    features: Tensor  # contribution of frame and pose to the decoder fusion's first layer


class VAE_Model(nn.Module):
    """Conditional VAE p(x[t] | x[t-1], p[t], z[t]) with posterior q(z[t] | x[t], p[t]) and prior N(0, I).

    Args:
        args: any object with `F_dim, L_dim, N_dim, D_out_dim`: channels of the frame feature, the pose
            feature, z and the fused feature. Optional: `arch`, the networks ("lab" if absent), and the other
            `DEFAULTS` of the architecture, such as `output`: "linear", or "sigmoid" for frames in (0, 1).
            A value of None is the default.
    """

    def __init__(self, args):
        super().__init__()
        networks = ARCHITECTURES[getattr(args, "arch", "lab")]
        given = {name: getattr(args, name, None) for name in networks.DEFAULTS}
        sizes = {name: networks.DEFAULTS[name] if value is None else value for name, value in given.items()}
        (
            self.frame_transformation,
            self.label_transformation,
            self.Gaussian_Predictor,
            self.Decoder_Fusion,
            self.Generator,
        ) = networks.build(**sizes)
        self.uses_reference = networks.USES_REFERENCE
        self.N_dim = args.N_dim

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """`(N_dim, h, w)`: the shape of z for a frame of that size."""
        stride = self.Gaussian_Predictor.stride
        return self.N_dim, math.ceil(height / stride), math.ceil(width / stride)

    def forward(
        self,
        frames: Tensor,
        poses: Tensor,
        teacher_forcing: bool,
        noise: Tensor | None = None,
        posterior_mask: Tensor | None = None,
        share_gradients: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Roll out training clips, with z from the posterior, or 0 where it is masked.

        BatchNorm (in the pose encoder of `lab`) normalizes over all B * (T - 1) poses of the call.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], T >= 2.
            teacher_forcing: condition each step on the true previous frame; otherwise on the prediction,
                through which gradients flow.
            noise: `(B, T-1, N_dim, h, w)`, eps of the reparameterization; drawn if not given.
            posterior_mask: `(B,)`, 1 for clips with z from the posterior (default), 0 for clips with z = 0.
            share_gradients: compute each weight's gradient once for all steps of the rollout, which is faster
                where the number of operators counts (GPUs).

        Returns:
            predicted `(B, T-1, 3, H, W)`, frames 1 .. T-1, and `mu, logvar` of the posterior,
            `(B, T-1, N_dim, h, w)`.
        """
        batch_size, length = frames.shape[:2]
        features = self.frame_transformation(fold_time(frames))
        pose_features = self.label_transformation(fold_time(poses[:, 1:]))
        # Split, not sliced: its backward is one concatenation, that of slices sums padded tensors.
        first_feature, target_features = features.split([batch_size, (length - 1) * batch_size])
        noise = None if noise is None else fold_time(noise)
        z, mu, logvar = self.Gaussian_Predictor(target_features, pose_features, noise)
        if posterior_mask is not None:
            z = z * posterior_mask.repeat(length - 1)[:, None, None, None]
        reference = self.reference(frames[:, 0], poses[:, 0], first_feature)
        if teacher_forcing:
            reference = reference and Reference(*(part.repeat(length - 1, 1, 1, 1) for part in reference))
            predicted = self.decode(features[:-batch_size], pose_features, z, reference)
        else:
            rolled_out = self.frame_transformation, self.Decoder_Fusion, self.Generator
            with shared_gradients(*rolled_out) if share_gradients else contextlib.nullcontext():
                steps = pose_features.split(batch_size), z.split(batch_size)
                predicted = self.rollout(first_feature, *steps, reference)
        return tuple(unfold_time(folded, batch_size) for folded in (predicted, mu, logvar))

    def reference(self, frame: Tensor, pose: Tensor, feature: Tensor | None = None) -> Reference | None:
        """The reference inputs shared by all steps; None for `lab`."""
        if not self.uses_reference:
            return None
        feature = self.frame_transformation(frame) if feature is None else feature
        features = self.Decoder_Fusion.reference_features(feature, self.label_transformation(pose))
        return Reference(frame, features)

    def decode(self, feature: Tensor, pose_feature: Tensor, z: Tensor, reference: Reference | None) -> Tensor:
        """The next frame, from the features of the previous frame and of the next pose."""
        if reference is None:
            return self.Generator(self.Decoder_Fusion(feature, pose_feature, z))
        fused = self.Decoder_Fusion(feature, pose_feature, z, reference.features)
        return self.Generator(fused, reference.frame)

    def rollout(self, feature: Tensor, pose_features, latents, reference: Reference | None) -> Tensor:
        """Frames 1 .. T-1, each conditioned on the previous prediction, `((T-1) * B, 3, H, W)`."""
        predicted = []
        for pose_feature, z in zip(pose_features, latents, strict=True):
            if predicted:
                feature = self.frame_transformation(predicted[-1])
            predicted.append(self.decode(feature, pose_feature, z, reference))
        return torch.cat(predicted)

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Eval mode without gradients; the former mode is restored at the end."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def posterior(self, frames: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        """`mu, logvar` of q(z | x, p) for `(N, 3, H, W)`, each `(N, N_dim, h, w)`, in eval mode."""
        with self.inference():
            features = self.frame_transformation(frames), self.label_transformation(poses)
            # A drawn sample would advance the random numbers of training.
            noise = frames.new_zeros(len(frames), *self.latent_shape(*frames.shape[-2:]))
            _, mu, logvar = self.Gaussian_Predictor(*features, noise)
            return mu, logvar

    def predict(self, frames: Tensor, poses: Tensor, z: Tensor | None = None, tta: int = 1) -> Tensor:
        """Predict each frame from the true previous one (teacher forcing), in eval mode.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], on the model's device.
            z: latents, `(B, T, N_dim, h, w)`, by default 0; `z[:, 0]` is not used.
            tta: see `generate`.

        Returns:
            `(B, T-1, 3, H, W)`, frames 1 .. T-1; not clamped.
        """
        with self.inference():
            shifts = ShiftTTA(tta, frames.shape[-1], frames.device)
            if z is None:
                z = frames.new_zeros(*frames.shape[:2], *self.latent_shape(*frames.shape[-2:]))
            reference = self.reference(shifts.copies(frames[:, 0]), shifts.copies(poses[:, 0]))
            predicted = []
            steps = (
                frames[:, :-1].unbind(1),
                poses[:, 1:].unbind(1),
                z[:, 1:].repeat(tta, 1, 1, 1, 1).unbind(1),
            )
            for previous, pose, latent in zip(*steps, strict=True):
                feature = self.frame_transformation(shifts.copies(previous))
                pose_feature = self.label_transformation(shifts.copies(pose))
                predicted.append(shifts.mean(self.decode(feature, pose_feature, latent, reference)))
            return torch.stack(predicted, dim=1).to(frames.dtype)

    def generate(
        self,
        first_frame: Tensor,
        poses: Tensor,
        sample: bool = False,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
        tta: int = 1,
        wrap_step: Callable[[Callable], Callable] | None = None,
        report: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Generate videos autoregressively, in eval mode.

        Args:
            first_frame: `(B, 3, H, W)` in [0, 1], on the model's device.
            poses: `(B, T, 3, H, W)` in [0, 1], any T, on any device.
            sample: draw z from the prior N(0, I), with `generator`, instead of its mean, 0.
            z: latents to use instead, `(B, T, N_dim, h, w)`; `z[:, 0]` is not used.
            tta: test-time augmentation: a frame is the mean of this many predictions, see `ShiftTTA`.
            wrap_step: wraps the function of one step to make it faster. The function takes a pose feature,
                reads and writes tensors in place, and returns nothing.
            report: called with the number of frames of each video since the last call.

        Returns:
            `(B, T, 3, H, W)` on the device of `poses`, the first frame included; not clamped.
        """
        length, chunk, device = poses.shape[1], max(1, POSE_CHUNK // len(poses)), first_frame.device
        shape = len(poses), *self.latent_shape(*poses.shape[-2:])
        stream = StreamingRollout(self, first_frame, poses[:, 0].to(device), tta, wrap_step)
        video = first_frame.new_empty(length, *first_frame.shape)
        video[0] = first_frame
        for start in range(1, length, chunk):
            part = slice(start, start + chunk)
            latents = None if z is None else z[:, part]
            if sample and z is None:
                draws = (torch.randn(shape, generator=generator, device=device) for _ in range(length)[part])
                latents = torch.stack(list(draws), dim=1)
            video[part] = stream(poses[:, part], latents).transpose(0, 1)
            if report is not None:
                report(len(video[part]))
        return video.transpose(0, 1).to(poses.device)
