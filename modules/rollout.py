"""Generation: a video that grows frame by frame, each from the model's own last frame."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIXELS_AT_ONCE = 2**20  # of poses that are encoded at once, so that large pictures need no more memory


class Shifts:
    """Copies of pictures that are shifted sideways, and the mean of pictures that are shifted back.

    Networks that reduce the size compute a little differently after a shift, and the mean over shifts has a
    smaller error than each ("cycle spinning", Coifman and Donoho 1995).

    Args:
        count: of the copies, shifted by 0, 1, -1, 2, -2, ... pixels.
        width: of the pictures.
    """

    def __init__(self, count: int, width: int, device: torch.device | str):
        offsets = [(index + 1) // 2 * (1 if index % 2 else -1) for index in range(count)]
        places = torch.arange(width, device=device)
        self.columns = [(places - offset).clamp(0, width - 1) for offset in offsets]
        self._back = [(places + offset).clamp(0, width - 1) for offset in offsets]
        kept = torch.stack([(places + offset >= 0) & (places + offset < width) for offset in offsets])
        self._weights = (kept / kept.sum(dim=0))[:, None, None, None]

    def copies(self, pictures: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(count * N, C, H, W)`; an edge is repeated where nothing is known."""
        if len(self.columns) == 1:
            return pictures
        return torch.cat([pictures[..., columns] for columns in self.columns])

    def mean(self, copies: Tensor) -> Tensor:
        """`(count * N, C, H, W)` -> `(N, C, H, W)`, from the copies that hold a pixel."""
        if len(self._back) == 1:
            return copies
        parts = zip(copies.chunk(len(self._back)), self._back, self._weights, strict=True)
        return sum(part[..., columns] * weights for part, columns, weights in parts)


class Rollout:
    """A generation in progress. It takes poses in pieces of any length, so that a video may be endless.

    Args:
        model: the `VAE_Model`.
        first_frame: `(B, 3, H, W)` in [0, 1], on the model's device.
        first_pose: its pose, the same.
        shifts: a frame is the mean of that many predictions, see `Shifts`; they share z.
        wrap_step: as of `VAE_Model.generate`.
    """

    def __init__(
        self,
        model,
        first_frame: Tensor,
        first_pose: Tensor,
        shifts: int = 1,
        wrap_step: Callable[[Callable], Callable] | None = None,
    ):
        self._model = model
        self._shifted = Shifts(shifts, first_frame.shape[-1], first_frame.device)
        with model.inference():
            self._frame = first_frame.clone()
            self._first = model.shifted_first_frame(first_frame.clone(), first_pose, self._shifted)
            self._feature = model.frame_transformation(self._shifted.copies(self._frame))
        self._z = first_frame.new_zeros(len(first_frame), *model.latent_shape(*first_frame.shape[-2:]))
        self._step = wrap_step(self._predict) if wrap_step else self._predict

    def _predict(self, pose_feature: Tensor) -> None:
        z = self._z.repeat(len(self._shifted.columns), 1, 1, 1)
        painted = self._model.paint(self._feature, pose_feature, z, self._first)
        self._frame.copy_(self._shifted.mean(painted))
        self._feature.copy_(self._model.frame_transformation(self._shifted.copies(self._frame)))

    def __call__(
        self,
        poses: Tensor,
        sample: bool = False,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        """The next frames.

        Args:
            poses: `(B, N, 3, H, W)` in [0, 1]; may be on another device than the model.
            sample: draw z from the prior N(0, I), with `generator`, instead of using its mean, 0.
            z: the latents to use instead, `(B, N, N_dim, h, w)`.

        Returns:
            `(B, N, 3, H, W)` on the model's device; not clamped.
        """
        frames = self._frame.new_empty(poses.shape[1], *self._frame.shape)
        with self._model.inference():
            for t, feature in enumerate(self._features(poses)):
                if z is not None:
                    self._z.copy_(z[:, t])
                elif sample:
                    self._z.normal_(generator=generator)
                self._step(feature)
                frames[t] = self._frame
        return frames.transpose(0, 1)

    def _features(self, poses: Tensor) -> Iterator[Tensor]:
        """The pose feature of each step, of all shifted copies."""
        pixels = poses[:, :1, 0].numel()
        for piece in poses.split(max(1, PIXELS_AT_ONCE // pixels), dim=1):
            folded = piece.transpose(0, 1).flatten(0, 1).to(self._frame.device, non_blocking=True)
            features = self._model.label_transformation(self._shifted.copies(folded))
            features = features.unflatten(0, (len(self._shifted.columns), -1, len(poses)))
            yield from features.transpose(0, 1).flatten(1, 2)
