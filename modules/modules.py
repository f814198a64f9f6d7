"""The `lab` architecture: the five networks of the course lab, convolutional at the frames' full resolution.

Shapes: `N` pictures of `(C, H, W)`. Layers are numbered as in the course lab's checkpoints (docs/contract.md,
"Networks").
"""

import torch
from torch import Tensor, nn

from .layers import DepthConvBlock, ResidualBlock
from .shared_weights import Conv2d

# Sizes of the networks and range of their output, where no flag says otherwise.
DEFAULTS = {"F_dim": 128, "L_dim": 32, "N_dim": 12, "D_out_dim": 192, "output": "linear"}
SEES_FIRST_FRAME = False

# A standard deviation of exp(10 / 2) = 148 is pure noise and one of exp(-10 / 2) is almost none. Values
# beyond add nothing but the overflow of exp, by which runs with beta = 0 became NaN.
LOGVAR_RANGE = (-10.0, 10.0)


def posterior_sample(parameters: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of `(N, 2c, h, w)` as mu and logvar, and a sample: `z, mu, logvar`.

    `logvar` is clamped to `LOGVAR_RANGE`, so that neither z nor the KL can overflow. The sample
    `z = mu + exp(logvar / 2) * eps`, `eps ~ N(0, I)`, is differentiable in mu and logvar
    (the reparameterization trick, Kingma and Welling 2014, section 2.4). `noise` is eps, drawn if not given.
    """
    mu, logvar = parameters.chunk(2, dim=1)
    logvar = logvar.clamp(*LOGVAR_RANGE)
    noise = torch.randn_like(mu) if noise is None else noise
    return mu + torch.exp(0.5 * logvar) * noise, mu, logvar


class RGB_Encoder(nn.Sequential):
    """Frame encoder: picture `(N, in_chans, H, W)` -> feature `(N, out_chans, H, W)`."""

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
    """Pose encoder: pose picture `(N, in_chans, H, W)` -> feature `(N, out_chans, H, W)`.

    Layer 3 has no activation: the course lab's code passes `True` as the slope of a LeakyReLU, which makes it
    the identity, and its checkpoints must give the same results here.
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
    """Posterior q(z | x, c): a diagonal Gaussian for every pixel.

    `(frame_feature, pose_feature)`, concatenated to `(N, in_chans, H, W)`, gives `z, mu, logvar`, each
    `(N, out_chans, H, W)`. Layer 5 has no activation, as in `Label_Encoder`.
    """

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

    @staticmethod
    def latent_size(height: int, width: int) -> tuple[int, int]:
        """Height and width of z for pictures of a size."""
        return height, width


class Decoder_Fusion(nn.Sequential):
    """Fuses `(frame_feature, pose_feature, z)`, `in_chans` in all, to `(N, out_chans, H, W)`."""

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
    """Feature `(N, input_nc, H, W)` -> frame `(N, output_nc, H, W)` of unbounded range."""

    def __init__(self, input_nc: int, output_nc: int):
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


class BoundedGenerator(Generator):
    """`Generator` whose frames lie in (0, 1)."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).sigmoid()


def build(F_dim: int, L_dim: int, N_dim: int, D_out_dim: int, output: str) -> tuple[nn.Module, ...]:
    """The five networks, in the order of `VAE_Model`; `output` "sigmoid": frames in (0, 1)."""
    return (
        RGB_Encoder(3, F_dim),
        Label_Encoder(3, L_dim),
        Gaussian_Predictor(F_dim + L_dim, N_dim),
        Decoder_Fusion(F_dim + L_dim + N_dim, D_out_dim),
        (BoundedGenerator if output == "sigmoid" else Generator)(D_out_dim, 3),
    )
