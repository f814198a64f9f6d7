"""The `lab` architecture: the course's five networks, with all convolutions at full resolution.

Shapes are `(N, C, H, W)`. Layer names and indices match the keys of the course's checkpoints
(docs/compatibility.md, "Networks").
"""

import torch
from torch import Tensor, nn

from .shared_weights import Conv2d

# Sizes of the networks and range of their output, where no flag sets them.
DEFAULTS = {"F_dim": 128, "L_dim": 32, "N_dim": 12, "D_out_dim": 192, "output": "linear"}
USES_REFERENCE = False

# A standard deviation of exp(10 / 2) = 148 is pure noise, one of exp(-10 / 2) almost none. Beyond, exp can
# overflow, which made runs with beta = 0 diverge.
LOGVAR_RANGE = (-10.0, 10.0)


def posterior_sample(parameters: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of `(N, 2c, h, w)` as mu and logvar, and a sample: `z, mu, logvar`.

    `z = mu + exp(logvar / 2) * eps` with `eps ~ N(0, I)`, the reparameterization trick (Kingma and Welling
    2014, section 2.4). `noise` is eps, drawn if not given; `logvar` is clamped to `LOGVAR_RANGE`.
    """
    mu, logvar = parameters.chunk(2, dim=1)
    logvar = logvar.clamp(*LOGVAR_RANGE)
    noise = torch.randn_like(mu) if noise is None else noise
    return mu + torch.exp(0.5 * logvar) * noise, mu, logvar


class ResidualBlock(nn.Module):
    """Two activated 3x3 convolutions and a skip connection: `(N, i, H, W)` -> `(N, o, H, W)`.

    After He et al. 2016, with the second activation before the addition.
    """

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.conv1 = Conv2d(in_chans, out_chans, 3, padding=1)
        self.conv2 = Conv2d(out_chans, out_chans, 3, padding=1)
        # In place, here and below, where nothing else reads the input: saves memory.
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.skip = Conv2d(in_chans, out_chans, 1) if in_chans != out_chans else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.conv1(x)))) + self.skip(x)


class DepthConv(nn.Module):
    """1x1, depthwise 3x3, 1x1 convolutions and a skip connection: `(N, i, H, W)` -> `(N, o, H, W)`.

    With `ConvFFN` after Li et al., "Neural Video Compression with Diverse Contexts" (CVPR 2023).
    """

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.conv1 = nn.Sequential(Conv2d(in_chans, in_chans, 1), nn.LeakyReLU(0.01, inplace=True))
        self.depth_conv = Conv2d(in_chans, in_chans, 3, padding=1, groups=in_chans)
        self.conv2 = Conv2d(in_chans, out_chans, 1)
        self.adaptor = Conv2d(in_chans, out_chans, 1) if in_chans != out_chans else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.depth_conv(self.conv1(x))) + self.adaptor(x)


class ConvFFN(nn.Module):
    """Gated pointwise feed-forward layer with a skip connection: `(N, c, H, W)` -> `(N, c, H, W)`."""

    def __init__(self, chans: int):
        super().__init__()
        self.conv = Conv2d(chans, 4 * chans, 1)
        self.act = nn.LeakyReLU(0.1)
        self.conv_out = Conv2d(2 * chans, chans, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, dim=1)
        return x + self.conv_out(value * self.act(gate))


class DepthConvBlock(nn.Module):
    """`DepthConv`, then `ConvFFN`: `(N, i, H, W)` -> `(N, o, H, W)`."""

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.block = nn.Sequential(DepthConv(in_chans, out_chans), ConvFFN(out_chans))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class RGB_Encoder(nn.Sequential):
    """Frame encoder: frame `(N, in_chans, H, W)` -> feature `(N, out_chans, H, W)`."""

    def __init__(self, in_chans: int, out_chans: int):
        o = out_chans
        super().__init__(
            ResidualBlock(in_chans, o // 8),
            DepthConvBlock(o // 8, o // 8),
            ResidualBlock(o // 8, o // 4),
            DepthConvBlock(o // 4, o // 4),
            ResidualBlock(o // 4, o // 2),
            DepthConvBlock(o // 2, o // 2),
            Conv2d(o // 2, o, 3, padding=1),
        )


class Label_Encoder(nn.Sequential):
    """Pose encoder: pose image `(N, in_chans, H, W)` -> feature `(N, out_chans, H, W)`.

    Layer 3 is the identity: the course's code passes `True` as the slope of a LeakyReLU there, and its
    checkpoints must compute the same here.
    """

    def __init__(self, in_chans: int, out_chans: int):
        o = out_chans
        super().__init__(
            nn.ReflectionPad2d(3),
            Conv2d(in_chans, o // 2, 7),
            nn.BatchNorm2d(o // 2),
            nn.Identity(),
            ResidualBlock(o // 2, o),
        )


class Gaussian_Predictor(nn.Sequential):
    """Posterior q(z | x, p): a diagonal Gaussian at every pixel.

    `(frame_feature, pose_feature)`, concatenated to `(N, in_chans, H, W)`, gives `z, mu, logvar`, each
    `(N, out_chans, H, W)`. Layer 5 is the identity, as in `Label_Encoder`.
    """

    stride = 1  # of z

    def __init__(self, in_chans: int = 48, out_chans: int = 96):
        o = out_chans
        super().__init__(
            ResidualBlock(in_chans, o // 4),
            DepthConvBlock(o // 4, o // 4),
            ResidualBlock(o // 4, o // 2),
            DepthConvBlock(o // 2, o // 2),
            ResidualBlock(o // 2, o),
            nn.Identity(),
            Conv2d(o, 2 * o, 1),
        )

    def forward(
        self, frame_feature: Tensor, pose_feature: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return posterior_sample(super().forward(torch.cat([frame_feature, pose_feature], dim=1)), noise)


class Decoder_Fusion(nn.Sequential):
    """Fuses `(frame_feature, pose_feature, z)`, together `in_chans`, to `(N, out_chans, H, W)`."""

    def __init__(self, in_chans: int = 48, out_chans: int = 96):
        i, o = in_chans, out_chans
        super().__init__(
            DepthConvBlock(i, i),
            ResidualBlock(i, i // 4),
            DepthConvBlock(i // 4, i // 2),
            ResidualBlock(i // 2, i // 2),
            DepthConvBlock(i // 2, o // 2),
            Conv2d(o // 2, o, 1),
        )

    def forward(self, frame_feature: Tensor, pose_feature: Tensor, z: Tensor) -> Tensor:
        return super().forward(torch.cat([frame_feature, pose_feature, z], dim=1))


class Generator(nn.Sequential):
    """Feature `(N, input_nc, H, W)` -> frame `(N, output_nc, H, W)`, in (0, 1) if `bounded`."""

    def __init__(self, input_nc: int, output_nc: int, bounded: bool = False):
        n = input_nc
        super().__init__(
            DepthConvBlock(n, n),
            ResidualBlock(n, n // 2),
            DepthConvBlock(n // 2, n // 2),
            ResidualBlock(n // 2, n // 4),
            DepthConvBlock(n // 4, n // 4),
            ResidualBlock(n // 4, n // 8),
            DepthConvBlock(n // 8, n // 8),
            Conv2d(n // 8, output_nc, 1),
        )
        self.bounded = bounded

    def forward(self, features: Tensor) -> Tensor:
        frame = super().forward(features)
        return frame.sigmoid() if self.bounded else frame


def build(F_dim: int, L_dim: int, N_dim: int, D_out_dim: int, output: str) -> tuple[nn.Module, ...]:
    """The five networks, in the order of `VAE_Model`; `output` "sigmoid": frames in (0, 1)."""
    return (
        RGB_Encoder(3, F_dim),
        Label_Encoder(3, L_dim),
        Gaussian_Predictor(F_dim + L_dim, N_dim),
        Decoder_Fusion(F_dim + L_dim + N_dim, D_out_dim),
        Generator(D_out_dim, 3, output == "sigmoid"),
    )
