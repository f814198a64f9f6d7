"""The conditional VAE: how the five networks make a video, in training and in generation.

Notation: B clips, T frames, `x[t]` a frame, `p[t]` its pose. Work that needs no output of the model is
done for all time steps at once, with time folded into the batch, time first: `(T * B, C, H, W)`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import modules as lab
from . import unet
from .rollout import Rollout, Shifts
from .shared_weights import shared_gradients

ARCHITECTURES = {"lab": lab, "unet": unet}
# Poses that are encoded at once in generation: enough to fill a device, and the same memory for a video of
# any length.
POSES_AT_ONCE = 96


def fold_time(clips: Tensor) -> Tensor:
    """`(B, T, C, H, W)` -> `(T * B, C, H, W)`, so that the pictures of a time step are contiguous."""
    return clips.transpose(0, 1).flatten(0, 1)


def unfold_time(folded: Tensor, batch: int) -> Tensor:
    """`(T * B, C, H, W)` -> `(B, T, C, H, W)`."""
    return folded.unflatten(0, (-1, batch)).transpose(0, 1)


class FirstFrame(NamedTuple):
    """The given frame of each clip, for the networks that see it in every step.

    Attributes:
        frame: `(B, 3, H, W)`.
        known: what the decoder fusion knows from it and its pose.
    """

    frame: Tensor
    known: Tensor

    def repeat(self, times: int) -> "FirstFrame":
        """The same for `times` time steps that are computed at once."""
        return FirstFrame(*(tensor.repeat(times, 1, 1, 1) for tensor in self))


class VAE_Model(nn.Module):
    """Conditional VAE p(x[t] | x[t-1], p[t], z[t]) with posterior q(z[t] | x[t], p[t]), prior N(0, I).

    Args:
        args: any object with `F_dim, L_dim, N_dim, D_out_dim`: channels of the frame feature, of the pose
            feature, of z, and of the fused feature. Optional: `arch`, the networks ("lab" if absent), and
            what the architecture has a value for in its `DEFAULTS`, such as `output`: "linear", or "sigmoid"
            for frames in (0, 1).
    """

    def __init__(self, args):
        super().__init__()
        networks = ARCHITECTURES[getattr(args, "arch", "lab")]
        settings = {name: getattr(args, name, default) for name, default in networks.DEFAULTS.items()}
        (
            self.frame_transformation,
            self.label_transformation,
            self.Gaussian_Predictor,
            self.Decoder_Fusion,
            self.Generator,
        ) = networks.build(**settings)
        self.sees_first_frame = networks.SEES_FIRST_FRAME
        self.N_dim = args.N_dim

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """`(N_dim, h, w)`: the shape of z for a frame of a size."""
        return self.N_dim, *self.Gaussian_Predictor.latent_size(height, width)

    def forward(
        self,
        frames: Tensor,
        poses: Tensor,
        teacher_forcing: bool,
        noise: Tensor | None = None,
        from_posterior: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Roll out training clips, with z from the posterior, or 0 in some of them.

        BatchNorm (in the pose encoder of the `lab` architecture) normalizes in training by all B * (T - 1)
        poses of the call, not by the B poses of one step: the poses are known in advance, and statistics
        over more pictures are closer to those that generation uses.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], T >= 2.
            teacher_forcing: each step starts from the true last frame, otherwise from the model's own last
                frame, through which gradients flow.
            noise: `(B, T-1, N_dim, h, w)`, the standard normal sample of the reparameterization; drawn if
                not given.
            from_posterior: `(B,)`, 1 for clips with z from the posterior, 0 for those with the prior's mean,
                z = 0; all from the posterior if not given.

        Returns:
            predicted `(B, T-1, 3, H, W)`, the frames 1 .. T-1, and `mu, logvar` of the posterior,
            `(B, T-1, N_dim, h, w)`.
        """
        batch, length = frames.shape[:2]
        features = self.frame_transformation(fold_time(frames))
        pose_features = self.label_transformation(fold_time(poses[:, 1:]))
        # Split, not sliced: the gradient of a split is one concatenation, that of slices a sum of zeros.
        first_feature, target_features = features.split([batch, (length - 1) * batch])
        noise = None if noise is None else fold_time(noise)
        z, mu, logvar = self.Gaussian_Predictor(target_features, pose_features, noise)
        if from_posterior is not None:
            z = z * from_posterior.repeat(length - 1)[:, None, None, None]
        first = self._first_frame(frames[:, 0], first_feature, poses[:, 0])
        if teacher_forcing:
            first = first and first.repeat(length - 1)
            predicted = self.paint(features[:-batch], pose_features, z, first)
        else:
            predicted = self._free_run(first_feature, pose_features.split(batch), z.split(batch), first)
        return tuple(unfold_time(folded, batch) for folded in (predicted, mu, logvar))

    def _first_frame(self, frame: Tensor, feature: Tensor, pose: Tensor) -> FirstFrame | None:
        """What the decoder sees of the first frame in every step; None in an architecture without that."""
        if not self.sees_first_frame:
            return None
        known = self.Decoder_Fusion.from_first_frame(feature, self.label_transformation(pose))
        return FirstFrame(frame, known)

    def paint(self, feature: Tensor, pose_feature: Tensor, z: Tensor, first: FirstFrame | None) -> Tensor:
        """The next frame, from the features of the last frame and of the next pose."""
        if first is None:
            return self.Generator(self.Decoder_Fusion(feature, pose_feature, z))
        return self.Generator(self.Decoder_Fusion(feature, pose_feature, z, first.known), first.frame)

    def _free_run(self, feature: Tensor, pose_features, latents, first: FirstFrame | None) -> Tensor:
        """Frames 1 .. T-1, each from the one before, `((T-1) * B, 3, H, W)`."""
        predicted = []
        networks = self.frame_transformation, self.Decoder_Fusion, self.Generator
        # On a GPU the number of operators counts; CPUs lose as much by the stacking as they win.
        with shared_gradients(*networks if feature.is_cuda else ()):
            for pose_feature, z in zip(pose_features, latents, strict=True):
                if predicted:
                    feature = self.frame_transformation(predicted[-1])
                predicted.append(self.paint(feature, pose_feature, z, first))
        return torch.cat(predicted)

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Eval mode without gradients; the mode is restored at the end."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def posterior(self, frames: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x, p), in eval mode.

        Args:
            frames, poses: `(N, 3, H, W)` in [0, 1], on the model's device.

        Returns:
            `mu, logvar`, each `(N, N_dim, h, w)`.
        """
        with self.inference():
            features = self.frame_transformation(frames), self.label_transformation(poses)
            # No sample is wanted, and drawing one would change the random numbers of the training.
            noise = frames.new_zeros(len(frames), *self.latent_shape(*frames.shape[-2:]))
            _, mu, logvar = self.Gaussian_Predictor(*features, noise)
            return mu, logvar

    def predict(self, frames: Tensor, poses: Tensor, shifts: int = 1) -> Tensor:
        """Predict each frame from the true one before it (teacher forcing), in eval mode, with z = 0.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], on the model's device.
            shifts: as of `generate`.

        Returns:
            `(B, T-1, 3, H, W)`, the frames 1 .. T-1; not clamped.
        """
        with self.inference():
            shifted = Shifts(shifts, frames.shape[-1], frames.device)
            z = frames.new_zeros(len(frames) * shifts, *self.latent_shape(*frames.shape[-2:]))
            first = self.shifted_first_frame(frames[:, 0], poses[:, 0], shifted)
            predicted = []
            for last_frame, pose in zip(frames[:, :-1].unbind(1), poses[:, 1:].unbind(1), strict=True):
                feature = self.frame_transformation(shifted.copies(last_frame))
                pose_feature = self.label_transformation(shifted.copies(pose))
                predicted.append(shifted.mean(self.paint(feature, pose_feature, z, first)))
            return torch.stack(predicted, dim=1).to(frames.dtype)

    def shifted_first_frame(self, frame: Tensor, pose: Tensor, shifted: Shifts) -> FirstFrame | None:
        """What the decoder sees of shifted copies of the first frame; None as in `_first_frame`."""
        if not self.sees_first_frame:
            return None
        frame = shifted.copies(frame)
        return self._first_frame(frame, self.frame_transformation(frame), shifted.copies(pose))

    def generate(
        self,
        first_frame: Tensor,
        poses: Tensor,
        sample: bool = False,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
        shifts: int = 1,
        wrap_step: Callable[[Callable], Callable] | None = None,
        report: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Generate videos in eval mode, each frame from the model's own last frame.

        Args:
            first_frame: `(B, 3, H, W)` in [0, 1], on the model's device.
            poses: `(B, T, 3, H, W)` in [0, 1], of any T; may be on another device than the model.
            sample: draw z from the prior N(0, I), with `generator`, instead of using its mean, 0.
            z: the latents to use instead, `(B, T, N_dim, h, w)`; `z[:, 0]` is not used.
            shifts: a frame is the mean of that many predictions, see `Shifts`; they share z.
            wrap_step: wraps the function of one step, to run it faster: it takes the pose's feature, reads
                and writes tensors that stay in place, and returns nothing.
            report: called now and then with the number of frames of each video since the last call.

        Returns:
            `(B, T, 3, H, W)` on the device of `poses`, the first frame included; not clamped.
        """
        batch, length = poses.shape[:2]
        rollout = Rollout(self, first_frame, poses[:, 0].to(first_frame.device), shifts, wrap_step)
        video = first_frame.new_empty(length, *first_frame.shape)
        video[0] = first_frame
        chunk = max(1, POSES_AT_ONCE // batch)
        for start in range(1, length, chunk):
            part = slice(start, start + chunk)
            latents = None if z is None else z[:, part]
            video[part] = rollout(poses[:, part], sample, generator, latents).transpose(0, 1)
            if report is not None:
                report(len(video[part]))
        return video.transpose(0, 1).to(poses.device)
