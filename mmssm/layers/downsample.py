"""Halve a map's height and width and double its channels."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .conv_bn import conv_bn
from .map_conv import MapConv2d


class PatchMerging(BaseModule):
    """Swin's patch merging: 2 x 2 tokens, norm, linear map (VMamba's "v1").

    Maps of odd height or width are padded with zeros at the bottom and the
    right.

    Args:
        in_channels (int): Channels in; twice as many come out.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(
            4 * in_channels, 2 * in_channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class ConvDownsample(BaseModule):
    """3 x 3 convolution of stride 2, then a norm (VMamba's "v3").

    Args:
        in_channels (int): Channels in; twice as many come out.
        bias (bool): Whether the convolution has a bias. Defaults to True.
    """

    def __init__(self, in_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.conv = MapConv2d(
            in_channels, 2 * in_channels, 3, stride=2, padding=1, bias=bias
        )
        self.norm = nn.LayerNorm(2 * in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        return self.norm(self.conv(x))


class InvertedDownsample(BaseModule):
    """A wide depthwise convolution of stride 2 between two linear maps.

    The downsampling of `MLLA <https://arxiv.org/abs/2405.16605>`_.

    Args:
        in_channels (int): Channels in; twice as many come out.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        wide = 8 * in_channels
        self.conv = nn.Sequential(
            conv_bn(in_channels, wide, 1, bias=True, norm=False),
            conv_bn(wide, wide, 3, 2, groups=wide, bias=True, norm=False),
            conv_bn(wide, 2 * in_channels, 1, bias=True, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = self.conv(x.permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).contiguous()
