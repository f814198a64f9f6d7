"""The `unet` architecture: the five networks over a few scales, with a tenth of the arithmetic of `lab`.

A picture is folded at once (f x f pixels to channels) and unfolded at the end (Shi et al. 2016), so that no
layer works at the full size. The decoder fusion is a U-shaped network (Ronneberger et al. 2015): all that is
known of a frame meets at its entrance, before any layer has lost detail.

Shapes: pictures `(N, 3, H, W)`; features `(N, c, h, w)`, h = H / f and w = W / f; z at half of that.
Sides that cannot be divided are rounded up.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

from .modules import posterior_sample
from .shared_weights import Conv2d

# Sizes of the networks and range of their output, where no flag says otherwise.
DEFAULTS = {
    "F_dim": 32, "L_dim": 32, "N_dim": 12, "D_out_dim": 64, "output": "sigmoid", "fold": 2, "scales": 2,
}  # fmt: skip
SEES_FIRST_FRAME = True


def conv_block(in_chans: int, out_chans: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, GroupNorm (Wu and He 2018), SiLU: `(N, i, h, w)` -> `(N, o, h / stride, ..)`."""
    return nn.Sequential(
        Conv2d(in_chans, out_chans, 3, stride, padding=1),
        nn.GroupNorm(math.gcd(8, out_chans), out_chans),
        nn.SiLU(),
    )


def fold_pixels(picture: Tensor, fold: int) -> Tensor:
    """`(N, c, H, W)` -> `(N, fold^2 * c, h, w)`; the last row and column are repeated where needed."""
    height, width = picture.shape[-2:]
    if height % fold or width % fold:
        picture = pad(picture, (0, -width % fold, 0, -height % fold), mode="replicate")
    return nn.functional.pixel_unshuffle(picture, fold)


class RGB_Encoder(nn.Module):
    """Frame encoder: frame -> its feature of `out_chans` channels."""

    def __init__(self, in_chans: int, out_chans: int, fold: int = 2):
        super().__init__()
        self.fold = fold
        self.block = conv_block(fold**2 * in_chans, out_chans)

    def forward(self, frame: Tensor) -> Tensor:
        # Pixels with about zero mean and unit variance train faster.
        return self.block(fold_pixels(4 * (frame - 0.5), self.fold))


class Label_Encoder(nn.Module):
    """Pose encoder: pose picture, a drawing on white -> its feature of `out_chans` channels.

    A thin line on a small picture is pale: the encoder takes the square root of the ink, 1 - colour, which
    makes pale lines darker. Without it, the same network was 3 dB worse after 100 seconds of training.
    """

    def __init__(self, in_chans: int, out_chans: int, fold: int = 2):
        super().__init__()
        self.fold = fold
        self.block = conv_block(fold**2 * in_chans, out_chans)

    def forward(self, pose: Tensor) -> Tensor:
        return self.block(fold_pixels(2 * (1 - pose).clamp(min=0).sqrt(), self.fold))


class Gaussian_Predictor(nn.Module):
    """Posterior q(z | x, p): `z, mu, logvar`, each `(N, out_chans, h/2, w/2)`.

    Args:
        in_chans: channels of the frame's and of the pose's feature, together.
        fold: by which the features are smaller than the pictures.
    """

    def __init__(self, in_chans: int, out_chans: int, fold: int = 2):
        super().__init__()
        self.fold = fold
        self.layers = nn.Sequential(conv_block(in_chans, 64, stride=2), Conv2d(64, 2 * out_chans, 1))

    def forward(
        self, frame_feature: Tensor, pose_feature: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return posterior_sample(self.layers(torch.cat([frame_feature, pose_feature], dim=1)), noise)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of z for pictures of a size."""
        return tuple(math.ceil(math.ceil(side / self.fold) / 2) for side in (height, width))


class Scale(nn.Module):
    """A part of the U that works at half the size: `(N, c, h, w)` -> `(N, c, h, w)`.

    Args:
        scales: how many more scales there are, this one included.
    """

    def __init__(self, chans: int, scales: int):
        super().__init__()
        below = chans * 3 // 2
        self.down = conv_block(chans, below, stride=2)
        self.deep = deep_layers(below, scales)
        self.leave = nn.Sequential(conv_block(below + chans, chans), conv_block(chans, chans))

    def forward(self, x: Tensor) -> Tensor:
        below = interpolate(self.deep(self.down(x)), x.shape[-2:])
        return self.leave(torch.cat([below, x], dim=1))


def deep_layers(chans: int, scales: int) -> nn.Sequential:
    """The layers of one scale, and of those below it if `scales` is more than 1."""
    second = Scale(chans, scales - 1) if scales > 1 else conv_block(chans, chans)
    return nn.Sequential(conv_block(chans, chans), second)


class Decoder_Fusion(nn.Module):
    """Fuses the features of the last frame and the pose, z, and those of the first frame and its pose.

    The first frame is given and has no errors: appearance comes from it where the last frame has lost it. Its
    pose tells which part of the background the person hides in it. The first layer is linear, and the first
    frame is the same in all time steps, so its share is computed once (`from_first_frame`).

    Returns `(N, out_chans, h, w)`.

    Args:
        scales: of the U, at least 2; the first is that of the features.
    """

    def __init__(self, frame_chans: int, pose_chans: int, z_chans: int, out_chans: int, scales: int = 2):
        super().__init__()
        fine, coarse = out_chans, out_chans * 3 // 2
        self.inputs = [
            frame_chans,
            frame_chans + pose_chans,
            pose_chans,
        ]  # last frame; first frame, its pose; pose
        self.enter = nn.Sequential(conv_block(2 * (frame_chans + pose_chans), fine), conv_block(fine, fine))
        self.down = conv_block(fine, coarse, stride=2)
        # z starts with weights of zero: before the posterior has learned anything, it is only noise.
        self.inject = Conv2d(z_chans, coarse, 1)
        nn.init.zeros_(self.inject.weight)
        self.deep = deep_layers(coarse, scales - 1)
        self.leave = nn.Sequential(conv_block(coarse + fine, fine), conv_block(fine, fine))

    def from_first_frame(self, feature: Tensor, pose_feature: Tensor) -> Tensor:
        """The share of the first frame and its pose in the first layer, `(N, out_chans, h, w)`."""
        _, weight, _ = self.enter[0][0].weight.split(self.inputs, dim=1)
        return conv2d(torch.cat([feature, pose_feature], dim=1), weight, padding=1)

    def forward(self, frame_feature: Tensor, pose_feature: Tensor, z: Tensor, from_first: Tensor) -> Tensor:
        (conv, *norm), second = self.enter
        of_frame, _, of_pose = conv.weight.split(self.inputs, dim=1)
        weight = torch.cat([of_frame, of_pose], dim=1)
        x = conv2d(torch.cat([frame_feature, pose_feature], dim=1), weight, conv.bias, padding=1) + from_first
        for layer in norm:
            x = layer(x)
        skip = second(x)
        x = self.deep(self.down(skip) + self.inject(z))
        x = interpolate(x, skip.shape[-2:])
        return self.leave(torch.cat([x, skip], dim=1))


class Generator(nn.Module):
    """The fused feature and the first frame -> the next frame `(N, output_nc, H, W)`.

    The frame is painted and blended over the first frame by a mask, which is learned with it: what does not
    move is copied exactly. The mask starts near 0.5, because the gradient of a mask of 0 vanishes.
    """

    def __init__(self, input_nc: int, output_nc: int, bounded: bool, fold: int = 2):
        super().__init__()
        self.paint = Conv2d(input_nc, fold**2 * (output_nc + 1), 3, padding=1)
        self.bounded, self.fold = bounded, fold

    def forward(self, fused: Tensor, first_frame: Tensor) -> Tensor:
        height, width = first_frame.shape[-2:]
        sheet = nn.functional.pixel_shuffle(self.paint(fused), self.fold)[..., :height, :width]
        painted, mask = sheet[:, :-1], sheet[:, -1:].sigmoid()
        if self.bounded:
            painted = painted.sigmoid()
        return mask * painted + (1 - mask) * first_frame


def build(
    F_dim: int, L_dim: int, N_dim: int, D_out_dim: int, output: str, fold: int, scales: int
) -> tuple[nn.Module, ...]:
    """The five networks, in the order of `VAE_Model`; `output` "sigmoid": frames in (0, 1)."""
    return (
        RGB_Encoder(3, F_dim, fold),
        Label_Encoder(3, L_dim, fold),
        Gaussian_Predictor(F_dim + L_dim, N_dim, fold),
        Decoder_Fusion(F_dim, L_dim, N_dim, D_out_dim, scales),
        Generator(D_out_dim, 3, output == "sigmoid", fold),
    )
