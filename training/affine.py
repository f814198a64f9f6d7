"""Where a person who was cut out of a clip is put: random maps from the new picture to the old one.

A map is a grid `(B, H, W, 2)` of places in the old picture, across and down in [-1, 1], as of grid_sample.
"""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid

from runtime.distributed import draw

# Closer to the camera or farther. Natural logarithm of the size; the middle of the picture is the horizon:
# closer feet are lower.
PASTE_LOG_SCALE = (-0.3, 1.1)
PASTE_MOVE = (0.5, 0.1)  # farthest shift, to either side and up or down, as fractions of half a picture
TILT_LOG_SCALE = (-0.15, 0.15)
TILT_MOVE = (0.2, 0.1)
ROTATION = 0.3  # radians, either way
SHEAR = 0.4  # sideways shift of a row, as a fraction of its distance from the middle


def placement(middle: Tensor, pasted: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random sizes `(B,)` and maps, which turn and shear every person around the middle of the body.

    Args:
        middle: of each body, from left to right, in [-1, 1]: `(B,)`.
        pasted: `(B,)`, true for persons that are put closer or farther, and elsewhere; the others stay about
            where they are.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draw(torch.rand, len(middle), device=middle.device)

    size = torch.where(pasted, uniform(*PASTE_LOG_SCALE), uniform(*TILT_LOG_SCALE)).exp()
    across, down = (
        torch.where(pasted, uniform(-far, far), uniform(-near, near))
        for far, near in zip(PASTE_MOVE, TILT_MOVE, strict=True)
    )
    angle, shear = uniform(-ROTATION, ROTATION), uniform(-SHEAR, SHEAR)
    linear = linear_map(angle, shear, 1 / size, height / width)
    centre = torch.stack([middle, torch.zeros_like(middle)], dim=1)[:, :, None]
    offset = centre - linear @ (centre + torch.stack([across, down], dim=1)[:, :, None])
    matrix = torch.cat([linear, offset], dim=2)
    return size, affine_grid(matrix, [len(middle), 1, height, width], align_corners=False)


def linear_map(angle: Tensor, shear: Tensor, scale: Tensor, aspect: float) -> Tensor:
    """Matrices `(B, 2, 2)` that shear, turn and scale; all arguments but the last are `(B,)`.

    Args:
        angle: in radians.
        shear: sideways shift of a row, as a fraction of its distance from the middle.
        aspect: height of the picture / its width. In the units of affine_grid every picture is 2 x 2, so what
            turns from one axis into the other is rescaled.
    """
    cos, sin = angle.cos(), angle.sin()
    rows = [[cos, (cos * shear - sin) * aspect], [sin / aspect, sin * shear + cos]]
    return scale[:, None, None] * torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
