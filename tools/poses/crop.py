"""One crop for all frames of a video, with a given aspect ratio, that contains the person."""

from typing import NamedTuple

import numpy as np
from PIL import Image

MARGIN_TOP, MARGIN_SIDES, MARGIN_BOTTOM = 0.12, 0.08, 0.05  # beyond the keypoints, in heights of the person


class Crop(NamedTuple):
    """A rectangle in pixels of the video. Beyond the image, edges are replicated."""

    left: int
    top: int
    width: int
    height: int

    def apply(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The crop of an image, uint8 `(H, W, 3)`, resized to `size = (width, height)`."""
        rows = np.arange(self.top, self.top + self.height).clip(0, image.shape[0] - 1)
        columns = np.arange(self.left, self.left + self.width).clip(0, image.shape[1] - 1)
        part = Image.fromarray(image[rows[:, None], columns])
        return np.asarray(part.resize(size, Image.Resampling.BOX if self.width > size[0] else None))

    def transform(self, keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Keypoints `(..., 2)` in the video -> in the resized crop."""
        return (keypoints - (self.left, self.top)) * (size[0] / self.width, size[1] / self.height)


def find_crop(keypoints: np.ndarray, video: tuple[int, int], aspect: float) -> Crop:
    """The largest crop that holds the person in all frames.

    Args:
        keypoints: `(T, J, 2)`, NaN where unknown.
        video: width and height.
        aspect: width / height of the crop.
    """
    low, high = _bounding_box(keypoints)
    width, height = video
    size = np.array([min(width, height * aspect), min(height, width / aspect)])
    if (high - low > size).any():  # beyond the image
        side = max((high - low)[1], (high - low)[0] / aspect)
        size = np.array([side * aspect, side])
    corner = (low + high - size) / 2
    for axis, extent in enumerate(video):
        if size[axis] <= extent:
            corner[axis] = np.clip(corner[axis], 0, extent - size[axis])
    return Crop(*(round(float(value)) for value in (*corner, *size)))


def _bounding_box(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner of the person in all frames."""
    known = keypoints.reshape(-1, 2)[~np.isnan(keypoints).any(axis=-1).reshape(-1)]
    y = keypoints[~np.isnan(keypoints[..., 1]).all(axis=1), :, 1]
    tall = np.median(np.nanmax(y, axis=1) - np.nanmin(y, axis=1))
    low, high = known.min(axis=0), known.max(axis=0)
    low = low - tall * np.array([MARGIN_SIDES, MARGIN_TOP])
    return low, high + tall * np.array([MARGIN_SIDES, MARGIN_BOTTOM])
