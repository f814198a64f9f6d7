"""Autoregressive generation: test-time augmentation, and a rollout that takes poses in chunks."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor

POSE_CHUNK = 96  # poses per chunk: fills a device, with memory independent of the video's length
PIXEL_CHUNK = 2**20  # pixels of the poses that are encoded at once


class ShiftTTA:
    """Test-time augmentation: averages predictions for horizontally shifted copies of the input.

    Strided networks are not exactly shift-equivariant, so the mean over shifts has a smaller error than one
    prediction ("cycle spinning", Coifman and Donoho 1995).

    Args:
        count: number of copies, shifted by 0, 1, -1, 2, -2, ... pixels.
        width: of the images.
    """

    def __init__(self, count: int, width: int, device: torch.device | str):
        offsets = [(index + 1) // 2 * (1 if index % 2 else -1) for index in range(count)]
        columns = torch.arange(width, device=device)
        self.count = count
        self._columns = [(columns - offset).clamp(0, width - 1) for offset in offsets]
        self._back = [(columns + offset).clamp(0, width - 1) for offset in offsets]
        inside = torch.stack([(columns + offset >= 0) & (columns + offset < width) for offset in offsets])
        self._weights = (inside / inside.sum(dim=0))[:, None, None, None]

    def copies(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(count * N, C, H, W)`; edges are replicated."""
        if self.count == 1:
            return images
        return torch.cat([images[..., columns] for columns in self._columns])

    def mean(self, copies: Tensor) -> Tensor:
        """`(count * N, C, H, W)` -> `(N, C, H, W)`, over the copies in which a pixel is inside the image."""
        if self.count == 1:
            return copies
        parts = zip(copies.chunk(self.count), self._back, self._weights, strict=True)
        return sum(part[..., columns] * weights for part, columns, weights in parts)


class StreamingRollout:
    """Generation in progress, for videos of unbounded length.

    Args:
        model: the `VAE_Model`.
        first_frame, first_pose: `(B, 3, H, W)` in [0, 1], on the model's device.
        tta, wrap_step: see `VAE_Model.generate`.
    """

    def __init__(
        self,
        model,
        first_frame: Tensor,
        first_pose: Tensor,
        tta: int = 1,
        wrap_step: Callable[[Callable], Callable] | None = None,
    ):
        self._model = model
        self._shifts = shifts = ShiftTTA(tta, first_frame.shape[-1], first_frame.device)
        self._frame = first_frame.clone()
        self._z = first_frame.new_zeros(len(first_frame), *model.latent_shape(*first_frame.shape[-2:]))
        with model.inference():
            self._reference = model.reference(shifts.copies(first_frame.clone()), shifts.copies(first_pose))
            self._feature = model.frame_transformation(shifts.copies(first_frame))
        self._step = wrap_step(self._predict) if wrap_step else self._predict

    def _predict(self, pose_feature: Tensor) -> None:
        z = self._z.repeat(self._shifts.count, 1, 1, 1)
        decoded = self._model.decode(self._feature, pose_feature, z, self._reference)
        self._frame.copy_(self._shifts.mean(decoded))
        self._feature.copy_(self._model.frame_transformation(self._shifts.copies(self._frame)))

    def __call__(self, poses: Tensor, z: Tensor | None = None) -> Tensor:
        """The next frames, `(B, N, 3, H, W)` on the model's device; not clamped.

        Args:
            poses: `(B, N, 3, H, W)` in [0, 1], on any device.
            z: latents, `(B, N, N_dim, h, w)`; by default the prior's mean, 0.
        """
        frames = self._frame.new_empty(poses.shape[1], *self._frame.shape)
        chunks = poses.split(max(1, PIXEL_CHUNK // poses[:, :1, 0].numel()), dim=1)
        with self._model.inference():
            for t, feature in enumerate(chain.from_iterable(map(self._encode, chunks))):
                if z is None:
                    self._z.zero_()
                else:
                    self._z.copy_(z[:, t])
                self._step(feature)
                frames[t] = self._frame
        return frames.transpose(0, 1)

    def _encode(self, poses: Tensor) -> Tensor:
        """The pose features of each step, for all shifted copies: `(N, count * B, c, h, w)`."""
        folded = poses.transpose(0, 1).flatten(0, 1).to(self._frame.device)
        features = self._model.label_transformation(self._shifts.copies(folded))
        return features.unflatten(0, (self._shifts.count, -1, len(poses))).transpose(0, 1).flatten(1, 2)
