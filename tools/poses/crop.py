"""The part of the pictures that is used: of one shape, the same in all frames, with the person inside."""

from typing import NamedTuple

import numpy as np
from PIL import Image

HEAD, SIDES, FEET = 0.12, 0.08, 0.05  # beyond the joints, in heights of the person


class Crop(NamedTuple):
    """A rectangle in pixels of the video; it may reach beyond the picture, whose edge is then repeated."""

    left: int
    top: int
    width: int
    height: int

    def apply(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The part of a picture, uint8 `(H, W, 3)`, resized to `size = (width, height)`."""
        rows = np.arange(self.top, self.top + self.height).clip(0, picture.shape[0] - 1)
        columns = np.arange(self.left, self.left + self.width).clip(0, picture.shape[1] - 1)
        part = Image.fromarray(picture[rows[:, None], columns])
        return np.asarray(part.resize(size, Image.Resampling.BOX if self.width > size[0] else None))

    def places(self, places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Places `(..., 2)` in the video -> in the resized part."""
        return (places - (self.left, self.top)) * (size[0] / self.width, size[1] / self.height)


def find_crop(places: np.ndarray, video: tuple[int, int], aspect: float) -> Crop:
    """The largest part of a shape that holds the person in all frames.

    Args:
        places: of joints, `(T, J, 2)`, NaN where they are not known.
        video: width and height.
        aspect: width / height of the part.
    """
    low, high = _box_of_person(places)
    width, height = video
    size = np.array([min(width, height * aspect), min(height, width / aspect)])
    if (high - low > size).any():  # the picture has to be continued at its sides
        side = max((high - low)[1], (high - low)[0] / aspect)
        size = np.array([side * aspect, side])
    corner = (low + high - size) / 2
    for axis, extent in enumerate(video):
        if size[axis] <= extent:
            corner[axis] = np.clip(corner[axis], 0, extent - size[axis])
    return Crop(*(round(float(value)) for value in (*corner, *size)))


def _box_of_person(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner of what a person ever covers."""
    known = places.reshape(-1, 2)[~np.isnan(places).any(axis=-1).reshape(-1)]
    tall = np.nanmedian(np.nanmax(places[..., 1], axis=1) - np.nanmin(places[..., 1], axis=1))
    low, high = known.min(axis=0), known.max(axis=0)
    return low - tall * np.array([SIDES, HEAD]), high + tall * np.array([SIDES, FEET])
