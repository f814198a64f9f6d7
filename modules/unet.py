"""The `unet` architecture: the five networks at several resolutions, with a twentieth of the FLOPs of `lab`.

Images are split into patches of f x f pixels, which become channels (pixel unshuffle, Shi et al. 2016), so no
layer works at full resolution. The decoder fusion is a U-Net (Ronneberger et al. 2015).

Shapes: images `(N, 3, H, W)`; features `(N, c, h, w)`, h = ceil(H / f), w = ceil(W / f); z at half of that.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from .lab import posterior_sample
from .shared_weights import Conv2d

# Sizes of the networks and range of their output, where no flag sets them.
DEFAULTS = {
    "F_dim": 32, "L_dim": 32, "N_dim": 12, "D_out_dim": 64, "output": "sigmoid",
    "patch_size": 2, "unet_levels": 2, "pose_background": "#ffffff",
}  # fmt: skip
USES_REFERENCE = True


def norm_act(chans: int) -> tuple[nn.Module, nn.Module]:
    """GroupNorm (Wu and He 2018) and SiLU."""
    return nn.GroupNorm(math.gcd(8, chans), chans), nn.SiLU()


def conv_block(in_chans: int, out_chans: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, GroupNorm, SiLU: `(N, i, h, w)` -> `(N, o, h / stride, ..)`."""
    return nn.Sequential(Conv2d(in_chans, out_chans, 3, stride, padding=1), *norm_act(out_chans))


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """`(N, c, H, W)` -> `(N, patch_size^2 * c, h, w)`; edges are replicated where needed."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        images = pad(images, (0, -width % patch_size, 0, -height % patch_size), mode="replicate")
    return nn.functional.pixel_unshuffle(images, patch_size)


class RGB_Encoder(nn.Module):
    """Frame encoder: `(N, in_chans, H, W)` in [0, 1] -> `(N, out_chans, h, w)`."""

    def __init__(self, in_chans: int, out_chans: int, patch_size: int = 2):
        super().__init__()
        self.patch_size = patch_size
        self.block = conv_block(patch_size**2 * in_chans, out_chans)

    def forward(self, frame: Tensor) -> Tensor:
        return self.block(patchify(4 * (frame - 0.5), self.patch_size))


class Label_Encoder(RGB_Encoder):
    """Pose encoder: pose image `(N, 3, H, W)` in [0, 1] -> `(N, out_chans, h, w)`.

    Args:
        background: colour of a pose image where nothing is drawn, `#rrggbb`.
    """

    def __init__(self, in_chans: int, out_chans: int, patch_size: int, background: str):
        super().__init__(in_chans, out_chans, patch_size)
        colour = torch.tensor([*bytes.fromhex(background[1:])]) / 255
        self.register_buffer("background", colour[:, None, None], persistent=False)

    def forward(self, pose: Tensor) -> Tensor:
        drawing = self.background - pose
        # Thin lines are pale in small images; the square root of the line intensity strengthens them.
        return self.block(patchify(2 * drawing.sign() * drawing.abs().sqrt(), self.patch_size))


class Gaussian_Predictor(nn.Module):
    """Posterior q(z | x, p): `z, mu, logvar`, each `(N, out_chans, H / stride, W / stride)`, rounded up."""

    def __init__(self, in_chans: int, out_chans: int, patch_size: int = 2):
        super().__init__()
        self.stride = 2 * patch_size
        self.layers = nn.Sequential(conv_block(in_chans, 64, stride=2), Conv2d(64, 2 * out_chans, 1))

    def forward(
        self, frame_feature: Tensor, pose_feature: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return posterior_sample(self.layers(torch.cat([frame_feature, pose_feature], dim=1)), noise)


class UNetLevel(nn.Module):
    """The `levels` U-Net levels below this resolution: `(N, c, h, w)` -> `(N, c, h, w)`."""

    def __init__(self, chans: int, levels: int):
        super().__init__()
        below = chans * 3 // 2
        self.down = conv_block(chans, below, stride=2)
        self.levels = make_levels(below, levels)
        self.out_block = nn.Sequential(conv_block(below + chans, chans), conv_block(chans, chans))

    def forward(self, x: Tensor) -> Tensor:
        below = interpolate(self.levels(self.down(x)), x.shape[-2:])
        return self.out_block(torch.cat([below, x], dim=1))


def make_levels(chans: int, levels: int) -> nn.Sequential:
    """The layers at one resolution, and of those below it if `levels` is more than 1."""
    second = UNetLevel(chans, levels - 1) if levels > 1 else conv_block(chans, chans)
    return nn.Sequential(conv_block(chans, chans), second)


class Decoder_Fusion(nn.Module):
    """Fuses the features of previous frame, pose and reference frame with z: `(N, out_chans, h, w)`.

    The error-free reference frame supplies appearance that a rollout loses; its pose shows what the person
    occludes in it. Its contribution to the first layer is computed once per clip (`reference_features`).

    Args:
        levels: number of U-Net resolutions, at least 2; the first is the features' resolution.
    """

    def __init__(self, frame_chans: int, pose_chans: int, z_chans: int, out_chans: int, levels: int = 2):
        super().__init__()
        fine, coarse = out_chans, out_chans * 3 // 2
        self.in_conv = Conv2d(frame_chans + pose_chans, fine, 3, padding=1)
        # Used once per clip, so its gradient needs no sharing.
        self.reference_conv = nn.Conv2d(frame_chans + pose_chans, fine, 3, padding=1, bias=False)
        self.in_block = nn.Sequential(*norm_act(fine), conv_block(fine, fine))
        self.down = conv_block(fine, coarse, stride=2)
        # z starts with zero weights: until the posterior has learned anything, it is only noise.
        self.z_proj = Conv2d(z_chans, coarse, 1)
        nn.init.zeros_(self.z_proj.weight)
        self.levels = make_levels(coarse, levels - 1)
        self.out_block = nn.Sequential(conv_block(coarse + fine, fine), conv_block(fine, fine))

    def reference_features(self, feature: Tensor, pose_feature: Tensor) -> Tensor:
        """The share of the reference frame and its pose in the first layer, `(N, out_chans, h, w)`."""
        return self.reference_conv(torch.cat([feature, pose_feature], dim=1))

    def forward(self, frame_feature: Tensor, pose_feature: Tensor, z: Tensor, reference: Tensor) -> Tensor:
        skip = self.in_block(self.in_conv(torch.cat([frame_feature, pose_feature], dim=1)) + reference)
        x = self.levels(self.down(skip) + self.z_proj(z))
        x = interpolate(x, skip.shape[-2:])
        return self.out_block(torch.cat([x, skip], dim=1))


class Generator(nn.Module):
    """Fused feature `(N, input_nc, h, w)` and reference frame -> next frame `(N, output_nc, H, W)`.

    A learned mask blends the output over the reference frame, so a static background is copied exactly.
    """

    def __init__(self, input_nc: int, output_nc: int, bounded: bool, patch_size: int = 2):
        super().__init__()
        self.to_pixels = Conv2d(input_nc, patch_size**2 * (output_nc + 1), 3, padding=1)
        self.bounded, self.patch_size = bounded, patch_size

    def forward(self, fused: Tensor, reference_frame: Tensor) -> Tensor:
        height, width = reference_frame.shape[-2:]
        pixels = nn.functional.pixel_shuffle(self.to_pixels(fused), self.patch_size)[..., :height, :width]
        image, mask = pixels[:, :-1], pixels[:, -1:].sigmoid()
        if self.bounded:
            image = image.sigmoid()
        return mask * image + (1 - mask) * reference_frame


def build(
    F_dim: int, L_dim: int, N_dim: int, D_out_dim: int, output: str, patch_size: int, unet_levels: int,
    pose_background: str,
) -> tuple[nn.Module, ...]:  # fmt: skip
    """The five networks, in the order of `VAE_Model`; `output` "sigmoid": frames in (0, 1)."""
    return (
        RGB_Encoder(3, F_dim, patch_size),
        Label_Encoder(3, L_dim, patch_size, pose_background),
        Gaussian_Predictor(F_dim + L_dim, N_dim, patch_size),
        Decoder_Fusion(F_dim, L_dim, N_dim, D_out_dim, unet_levels),
        Generator(D_out_dim, 3, output == "sigmoid", patch_size),
    )
