"""The conditional VAE: how the five networks make a video, in training and in generation.

Notation: B clips, T frames, `x[t]` a frame, `p[t]` its pose. Work that needs no output of the model is
done for all time steps at once, with time folded into the batch, time first: `(T * B, C, H, W)`.
"""

import torch
from torch import Tensor, nn

from .modules import Decoder_Fusion, Gaussian_Predictor, Generator, Label_Encoder, RGB_Encoder

# Pictures the pose encoder sees at once in generation: enough to fill a device, and no more memory
# for a video of an hour than for one of a second.
POSES_AT_ONCE = 96


def fold_time(clips: Tensor) -> Tensor:
    """`(B, T, C, H, W)` -> `(T * B, C, H, W)`, so that the pictures of a time step lie together."""
    return clips.transpose(0, 1).flatten(0, 1)


def unfold_time(folded: Tensor, batch: int) -> Tensor:
    """`(T * B, C, H, W)` -> `(B, T, C, H, W)`."""
    return folded.unflatten(0, (-1, batch)).transpose(0, 1)


class VAE_Model(nn.Module):
    """Conditional VAE p(x[t] | x[t-1], p[t], z[t]) with posterior q(z[t] | x[t], p[t]), prior N(0, I).

    Args:
        args: any object with `F_dim, L_dim, N_dim, D_out_dim` (channels of the frame feature, of the
            pose feature, of z, and of the fused feature) and, where it differs from the lab's,
            `output`: "linear", or "sigmoid" for pictures bounded to (0, 1).
    """

    def __init__(self, args):
        super().__init__()
        fused_from = args.F_dim + args.L_dim
        self.frame_transformation = RGB_Encoder(3, args.F_dim)
        self.label_transformation = Label_Encoder(3, args.L_dim)
        self.Gaussian_Predictor = Gaussian_Predictor(fused_from, args.N_dim)
        self.Decoder_Fusion = Decoder_Fusion(fused_from + args.N_dim, args.D_out_dim)
        self.Generator = Generator(args.D_out_dim, 3)
        self.N_dim = args.N_dim
        self.bounded = getattr(args, "output", "linear") == "sigmoid"

    def _paint(self, frame_feature: Tensor, pose_feature: Tensor, z: Tensor) -> Tensor:
        picture = self.Generator(self.Decoder_Fusion(frame_feature, pose_feature, z))
        return picture.sigmoid() if self.bounded else picture

    def forward(self, frames: Tensor, poses: Tensor, teacher_forcing: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Roll out training clips, z drawn from the posterior.

        BatchNorm (in the pose encoder) normalizes in training by all B * (T - 1) poses of the call,
        not by the B of one step: the poses are known ahead, and more pictures give statistics closer
        to those that generation uses.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], T >= 2.
            teacher_forcing: each step starts from the true last frame, else from the model's own,
                through which gradients flow.

        Returns:
            predicted `(B, T-1, 3, H, W)`, the frames 1 .. T-1, and `mu, logvar` of the posterior,
            `(B, T-1, N_dim, H, W)`.
        """
        batch = frames.shape[0]
        frame_features = self.frame_transformation(fold_time(frames))
        pose_features = self.label_transformation(fold_time(poses[:, 1:]))
        z, mu, logvar = self.Gaussian_Predictor(frame_features[batch:], pose_features)
        if teacher_forcing:
            predicted = self._paint(frame_features[:-batch], pose_features, z)
        else:
            predicted = self._free_run(frame_features[:batch], pose_features, z)
        return tuple(unfold_time(each, batch) for each in (predicted, mu, logvar))

    def _free_run(self, first_feature: Tensor, pose_features: Tensor, z: Tensor) -> Tensor:
        """Frames 1 .. T-1, each from the one before: `(B, ..)`, `(T-1 * B, ..)` -> `(T-1 * B, ..)`."""
        predicted, feature = [], first_feature
        for pose_now, z_now in zip(pose_features.split(len(feature)), z.split(len(feature)), strict=True):
            if predicted:
                feature = self.frame_transformation(predicted[-1])
            predicted.append(self._paint(feature, pose_now, z_now))
        return torch.cat(predicted)

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
            z: the latents to use instead, `(B, T, N_dim, H, W)`; `z[:, 0]` is not used.

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
        video = torch.empty(poses.shape, dtype=first_frame.dtype, device=poses.device)
        video[:, 0] = first_frame
        z_now = first_frame.new_zeros(batch, self.N_dim, *first_frame.shape[-2:])
        frame = first_frame
        chunk = max(1, POSES_AT_ONCE // batch)
        for start in range(1, length, chunk):
            some_poses = fold_time(poses[:, start : start + chunk]).to(device)
            pose_features = self.label_transformation(some_poses).split(batch)
            for t, pose_now in enumerate(pose_features, start):
                if z is not None:
                    z_now = z[:, t].to(device)
                elif sample:
                    z_now.normal_(generator=generator)
                frame = self._paint(self.frame_transformation(frame), pose_now, z_now)
                video[:, t] = frame
        return video
