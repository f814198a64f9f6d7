"""Building blocks of the `lab` architecture.

The names of the children are the keys of a checkpoint, so they are a public interface. The depthwise
blocks are those of Li et al., "Neural Video Compression with Diverse Contexts" (CVPR 2023).
"""

from torch import Tensor, nn

from .shared_weights import Conv2d


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip connection: `(N, i, H, W)` -> `(N, o, H, W)`.

    The activation follows both convolutions and the sum is not activated (He et al. 2016, with the
    second activation before the addition).
    """

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.conv1 = Conv2d(in_chans, out_chans, 3, padding=1)
        self.conv2 = Conv2d(out_chans, out_chans, 3, padding=1)
        # In place, here and below where nothing else needs the input: less memory, fewer pages to touch.
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.skip = Conv2d(in_chans, out_chans, 1) if in_chans != out_chans else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.conv1(x)))) + self.skip(x)


class DepthConv(nn.Module):
    """1x1, depthwise 3x3, 1x1 convolutions beside a skip: `(N, i, H, W)` -> `(N, o, H, W)`."""

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.conv1 = nn.Sequential(Conv2d(in_chans, in_chans, 1), nn.LeakyReLU(0.01, inplace=True))
        self.depth_conv = Conv2d(in_chans, in_chans, 3, padding=1, groups=in_chans)
        self.conv2 = Conv2d(in_chans, out_chans, 1)
        self.adaptor = Conv2d(in_chans, out_chans, 1) if in_chans != out_chans else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.depth_conv(self.conv1(x))) + self.adaptor(x)


class ConvFFN(nn.Module):
    """Gated feed-forward layer on each pixel, with a skip: `(N, c, H, W)` -> `(N, c, H, W)`."""

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
