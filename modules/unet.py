"""The five networks over three scales: the same names and roles as the lab's, a tenth of the arithmetic.

A picture is folded to half its size at once (2x2 pixels to channels) and unfolded at the end (Shi et al.
2016), so that no layer works at the full size; between lie two halvings with skip connections from the
encoders to the decoder (Ronneberger et al. 2015). A feature of a picture is a tuple, finest scale first:
`(N, w0, H/2, W/2), (N, w1, H/4, W/4), (N, w2, H/8, W/8)`. z lies at the coarsest scale.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .modules import posterior_sample

GROUPS = 8


def widths(chans: int) -> tuple[int, int, int]:
    """Channels of the three scales, finest first, for a network of size `chans`."""
    return chans // 2, chans, chans


class ConvBlock(nn.Sequential):
    """3x3 convolution, GroupNorm (Wu and He 2018), SiLU: `(N, i, h, w)` -> `(N, o, h / stride, ..)`."""

    def __init__(self, in_chans: int, out_chans: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_chans, out_chans, 3, stride, padding=1),
            nn.GroupNorm(GROUPS, out_chans),
            nn.SiLU(),
        )


class Encoder(nn.Module):
    """Picture `(N, in_chans, H, W)` -> its feature, of `widths(out_chans)` channels."""

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        fine, middle, coarse = widths(out_chans)
        self.fold = nn.PixelUnshuffle(2)
        self.levels = nn.ModuleList(
            nn.Sequential(ConvBlock(i, o, stride), ConvBlock(o, o))
            for i, o, stride in ((4 * in_chans, fine, 1), (fine, middle, 2), (middle, coarse, 2))
        )

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        x, feature = self.fold(picture), []
        for level in self.levels:
            x = level(x)
            feature.append(x)
        return tuple(feature)


class RGB_Encoder(Encoder):
    """Frame encoder. The feature ends with the folded picture itself, `(N, 12, H/2, W/2)`."""

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        return *super().forward(picture), self.fold(picture)


class Label_Encoder(Encoder):
    """Pose encoder."""


class Gaussian_Predictor(nn.Module):
    """Posterior q(z | x, c) at the coarsest scale: `z, mu, logvar`, each `(N, out_chans, H/8, W/8)`.

    Args:
        in_chans: channels of the frame's and of the pose's coarsest features, together.
    """

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.block = ConvBlock(in_chans, 64)
        self.head = nn.Conv2d(64, 2 * out_chans, 1)

    def forward(self, frame_feature, pose_feature) -> tuple[Tensor, Tensor, Tensor]:
        seen = torch.cat([frame_feature[2], pose_feature[2]], dim=1)
        return posterior_sample(self.head(self.block(seen)))

    @staticmethod
    def latent_size(height: int, width: int) -> tuple[int, int]:
        """Height and width of z for pictures of a size."""
        return height // 8, width // 8


class Decoder_Fusion(nn.Module):
    """Fuses, from coarse to fine, z with the features of the last frame, the pose and the first frame.

    Appearance comes from the last frame and, where that has lost it, from the first, which is given and
    never wrong. Returns `(N, w0, H/2, W/2)` and the first picture, folded, for the generator's blend.
    """

    sees_first_frame = True

    def __init__(self, frame_chans: int, pose_chans: int, z_chans: int, out_chans: int):
        super().__init__()
        below = (*widths(out_chans)[1:], z_chans)
        sizes = zip(below, widths(frame_chans), widths(pose_chans), widths(out_chans), strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(ConvBlock(x + 2 * frame + pose, o), ConvBlock(o, o)) for x, frame, pose, o in sizes
        )

    def forward(self, frame_feature, pose_feature, z: Tensor, first_feature) -> tuple[Tensor, Tensor]:
        x = z
        for scale in (2, 1, 0):
            if scale < 2:
                x = interpolate(x, scale_factor=2.0)
            seen = [x, frame_feature[scale], pose_feature[scale], first_feature[scale]]
            x = self.levels[scale](torch.cat(seen, dim=1))
        return x, first_feature[3]


class Generator(nn.Module):
    """The fused feature -> picture `(N, output_nc, H, W)`.

    The picture is painted and blended, by a mask that is learned with it, over the first frame: what does
    not move is copied exactly. The mask begins in the middle, for a mask of 0 learns nothing.
    """

    def __init__(self, input_nc: int, output_nc: int, bounded: bool):
        super().__init__()
        self.paint = nn.Conv2d(input_nc, 4 * output_nc, 3, padding=1)
        self.mask = nn.Conv2d(input_nc, 4, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        self.bounded = bounded

    def forward(self, fused: tuple[Tensor, Tensor]) -> Tensor:
        x, first = fused
        painted, mask = self.unfold(self.paint(x)), self.unfold(self.mask(x).sigmoid())
        if self.bounded:
            painted = painted.sigmoid()
        return mask * painted + (1 - mask) * self.unfold(first)


def build(args) -> tuple[nn.Module, ...]:
    """The five networks in the order of the roles, for `F_dim, L_dim, N_dim, D_out_dim, output`."""
    return (
        RGB_Encoder(3, args.F_dim),
        Label_Encoder(3, args.L_dim),
        Gaussian_Predictor(args.F_dim + args.L_dim, args.N_dim),
        Decoder_Fusion(args.F_dim, args.L_dim, args.N_dim, args.D_out_dim),
        Generator(args.D_out_dim // 2, 3, bounded=getattr(args, "output", "sigmoid") == "sigmoid"),
    )
