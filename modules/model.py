"""The conditional VAE: how the five networks make a video, in training and in generation.

Notation: B clips, T frames, `x[t]` a frame, `p[t]` its pose. Work that needs no output of the model is
done for all time steps at once, with time folded into the batch, time first: `(T * B, C, H, W)`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from . import modules as lab
from . import unet
from .graph import Graphed

ARCHITECTURES = {"lab": lab.build, "unet": unet.build}
# Pictures the pose encoder sees at once in generation: enough to fill a device, and no more memory
# for a video of an hour than for one of a second.
POSES_AT_ONCE = 96


# What an encoder returns for a picture: one tensor, or, from several scales, a tuple of them.
Feature = Tensor | tuple[Tensor, ...]


def fold_time(clips: Tensor) -> Tensor:
    """`(B, T, C, H, W)` -> `(T * B, C, H, W)`, so that the pictures of a time step lie together."""
    return clips.transpose(0, 1).flatten(0, 1)


def unfold_time(folded: Tensor, batch: int) -> Tensor:
    """`(T * B, C, H, W)` -> `(B, T, C, H, W)`."""
    return folded.unflatten(0, (-1, batch)).transpose(0, 1)


def each(function: Callable[[Tensor], Tensor], feature: Feature) -> Feature:
    """Apply a function to the tensors of a feature."""
    return function(feature) if isinstance(feature, Tensor) else tuple(map(function, feature))


def steps(feature: Feature, sizes: int | list[int]) -> Sequence[Feature]:
    """The feature of many pictures as features of `sizes` pictures each, such as those of one time step."""
    if isinstance(feature, Tensor):
        return feature.split(sizes)
    return list(zip(*(tensor.split(sizes) for tensor in feature), strict=True))


class VAE_Model(nn.Module):
    """Conditional VAE p(x[t] | x[t-1], p[t], z[t]) with posterior q(z[t] | x[t], p[t]), prior N(0, I).

    Args:
        args: any object with `F_dim, L_dim, N_dim, D_out_dim` (channels of the frame feature, of the
            pose feature, of z, and of the fused feature) and, where it differs from the lab's, `arch`,
            the networks, and `output`: "linear", or "sigmoid" for pictures bounded to (0, 1).
    """

    def __init__(self, args):
        super().__init__()
        (
            self.frame_transformation,
            self.label_transformation,
            self.Gaussian_Predictor,
            self.Decoder_Fusion,
            self.Generator,
        ) = ARCHITECTURES[getattr(args, "arch", "lab")](args)
        self.N_dim = args.N_dim

    def _paint(self, frame: Feature, pose: Feature, z: Tensor, memory: tuple[Feature, ...]) -> Tensor:
        """One step of generation, from features: of the last frame, of the pose, and `memory`."""
        return self.Generator(self.Decoder_Fusion(frame, pose, z, *memory))

    def _memory(self, first_frame: Feature, first_pose: Tensor) -> tuple[Feature, ...]:
        """What the decoder fusion sees in every step: features of the first frame and of its pose.

        Nothing, where the networks do not ask for it.
        """
        if not self.Decoder_Fusion.sees_first_frame:
            return ()
        return first_frame, self.label_transformation(first_pose)

    def latent_shape(self, length: int, height: int, width: int) -> tuple[int, ...]:
        """`(T-1, N_dim, h, w)`: the latents of a clip of `length` frames."""
        return length - 1, self.N_dim, *self.Gaussian_Predictor.latent_size(height, width)

    def forward(
        self, frames: Tensor, poses: Tensor, teacher_forcing: bool, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Roll out training clips, z drawn from the posterior.

        BatchNorm (in the lab's pose encoder) normalizes in training by all B * (T - 1) poses of the
        call, not by the B of one step: the poses are known ahead, and more pictures give statistics
        closer to those that generation uses.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], T >= 2.
            teacher_forcing: each step starts from the true last frame, else from the model's own,
                through which gradients flow.
            noise: `(B, T-1, N_dim, h, w)`, what makes z of the posterior; drawn if not given.

        Returns:
            predicted `(B, T-1, 3, H, W)`, the frames 1 .. T-1, and `mu, logvar` of the posterior,
            `(B, T-1, N_dim, h, w)`.
        """
        batch, length = frames.shape[:2]
        true_features = self.frame_transformation(fold_time(frames))
        pose_features = self.label_transformation(fold_time(poses[:, 1:]))
        # Split, not sliced: the gradient of a split is one concatenation, that of slices a sum of zeros.
        first, predictable = steps(true_features, [batch, (length - 1) * batch])
        noise = None if noise is None else fold_time(noise)
        z, mu, logvar = self.Gaussian_Predictor(predictable, pose_features, noise)
        memory = self._memory(first, poses[:, 0])
        if teacher_forcing:
            last = each(lambda tensor: tensor[:-batch], true_features)
            always = tuple(each(lambda tensor: tensor.repeat(length - 1, 1, 1, 1), one) for one in memory)
            predicted = self._paint(last, pose_features, z, always)
        else:
            predicted = self._free_run(first, steps(pose_features, batch), z.split(batch), memory)
        return tuple(unfold_time(folded, batch) for folded in (predicted, mu, logvar))

    def _free_run(
        self, first: Feature, poses: Sequence[Feature], latents: Sequence[Tensor], memory
    ) -> Tensor:
        """Frames 1 .. T-1, each from the one before, time folded into the batch."""
        predicted, feature = [], first
        for pose, z in zip(poses, latents, strict=True):
            if predicted:
                feature = self.frame_transformation(predicted[-1])
            predicted.append(self._paint(feature, pose, z, memory))
        return torch.cat(predicted)

    @torch.no_grad()
    def predict(self, frames: Tensor, poses: Tensor) -> Tensor:
        """Predict each frame from the true one before it (teacher-forced), in eval mode, with z = 0.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], on the model's device.

        Returns:
            `(B, T-1, 3, H, W)`, the frames 1 .. T-1.
        """
        was_training = self.training
        self.eval()
        try:
            size = self.Gaussian_Predictor.latent_size(*frames.shape[-2:])
            z = frames.new_zeros(len(frames), self.N_dim, *size)
            memory = self._memory(self.frame_transformation(frames[:, 0]), poses[:, 0])
            predicted = [
                self._paint(self.frame_transformation(last), self.label_transformation(pose), z, memory)
                for last, pose in zip(frames[:, :-1].unbind(1), poses[:, 1:].unbind(1), strict=True)
            ]
            return torch.stack(predicted, dim=1).to(frames.dtype)
        finally:
            self.train(was_training)

    @torch.no_grad()
    def generate(
        self,
        first_frame: Tensor,
        poses: Tensor,
        sample: bool = False,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        """Render videos in eval mode, each frame from the model's last; the mode is restored.

        Args:
            first_frame: `(B, 3, H, W)` in [0, 1]; the model's device.
            poses: `(B, T, 3, H, W)` in [0, 1], of any T; may lie on another device than the model.
            sample: draw z from the prior N(0, I), by `generator`, else use its mean, 0.
            z: the latents to use instead, `(B, T, N_dim, h, w)`; `z[:, 0]` is not used.

        Returns:
            `(B, T, 3, H, W)` on the device of `poses`, the first frame included; not clamped.
        """
        was_training = self.training
        self.eval()
        try:
            return self._generate(first_frame, poses, sample, generator, z)
        finally:
            self.train(was_training)

    def _generate(self, first_frame, poses, sample, generator, z):
        batch, length = poses.shape[:2]
        device = first_frame.device
        # Time first, so that the frames of a piece lie together and leave a GPU in one copy.
        shape = (length, batch, *poses.shape[2:])
        leaves = device.type == "cuda" and poses.device.type == "cpu"
        video = torch.empty(shape, dtype=first_frame.dtype, device=poses.device, pin_memory=leaves)
        video[0] = first_frame
        frame = first_frame.clone(memory_format=torch.channels_last)
        size = self.Gaussian_Predictor.latent_size(*first_frame.shape[-2:])
        z_now = first_frame.new_zeros(batch, self.N_dim, *size)
        memory = self._memory(self.frame_transformation(first_frame), poses[:, 0].to(device))

        def advance(*pose: Tensor) -> None:
            """Replace the frame by the next one; the pose's feature may have several tensors."""
            feature = pose[0] if len(pose) == 1 else pose
            frame.copy_(self._paint(self.frame_transformation(frame), feature, z_now, memory))

        if device.type == "cuda":
            advance = Graphed(advance)
        chunk = max(1, POSES_AT_ONCE // batch)
        for start in range(1, length, chunk):
            some_poses = fold_time(poses[:, start : start + chunk]).to(device, non_blocking=True)
            made = []
            for t, pose in enumerate(steps(self.label_transformation(some_poses), batch), start):
                if z is not None:
                    z_now.copy_(z[:, t])
                elif sample:
                    z_now.normal_(generator=generator)
                advance(*((pose,) if isinstance(pose, Tensor) else pose))
                made.append(frame.clone())
            # Nothing waits for this copy but the end of the video.
            video[start : start + chunk].copy_(torch.stack(made), non_blocking=True)
        if leaves:
            torch.cuda.synchronize(device)
        return video.transpose(0, 1)
