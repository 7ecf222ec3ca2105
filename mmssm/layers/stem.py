"""Stems: an image (B, 3, H, W) becomes a map (B, H', W', C) of tokens."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmssm.utils import UserError

from .conv_bn import conv_bn
from .map_conv import MapConv2d
from .slices import by_slices


def _check_images(x: Tensor, smallest: int) -> None:
    if x.dim() != 4:
        raise UserError(
            f'images must be (B, channels, H, W), got {tuple(x.shape)}; add '
            'the batch axis with image[None]'
        )
    if min(x.shape[-2:]) < smallest:
        raise UserError(
            f'the image is {x.shape[-2]} x {x.shape[-1]} pixels, smaller than '
            f'one patch; give at least {smallest} x {smallest}'
        )


class PatchStem(BaseModule):
    """Patches of 4 x 4 pixels, then a norm (VMamba's "v1").

    Rows and columns of pixels that do not fill a patch are dropped.

    Args:
        in_channels (int): Image channels.
        embed_dims (int): Token channels.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.conv = MapConv2d(in_channels, embed_dims, 4, stride=4)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H // 4, W // 4, C).

        Raises:
            UserError: If the image is smaller than one patch.
        """
        _check_images(x, 4)
        return self.norm(self.conv(x.permute(0, 2, 3, 1)))


class PatchTokens(BaseModule):
    """Square patches of any size and distance, without a norm (as in ViT).

    Images are padded with zeros at the bottom and the right, so that patches
    cover every pixel.

    Args:
        in_channels (int): Image channels.
        embed_dims (int): Token channels.
        patch_size (int): Side of a patch, in pixels.
        stride (int): Pixels from one patch to the next.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: int, stride: int
    ) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.conv = MapConv2d(
            in_channels, embed_dims, patch_size, stride=stride
        )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image of H x W pixels."""
        return (
            1 + max(0, -(-(height - self.patch_size) // self.stride)),
            1 + max(0, -(-(width - self.patch_size) // self.stride)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> ``(B, *grid(H, W), C)``.

        Raises:
            UserError: If x is not a batch of images.
        """
        _check_images(x, 1)
        bottom, right = (
            (tokens - 1) * self.stride + self.patch_size - side
            for tokens, side in zip(self.grid(*x.shape[-2:]), x.shape[-2:])
        )
        x = F.pad(x, (0, right, 0, bottom))
        return self.conv(x.permute(0, 2, 3, 1))


class ConvStem(BaseModule):
    """Two 3 x 3 convolutions of stride 2, each with a norm (VMamba's "v2").

    Args:
        in_channels (int): Image channels.
        embed_dims (int): Token channels.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        half = embed_dims // 2
        self.conv1 = MapConv2d(in_channels, half, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(half)
        self.act = nn.GELU()
        self.conv2 = MapConv2d(half, embed_dims, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H / 4), ceil(W / 4), C).

        Raises:
            UserError: If the image is smaller than one patch.
        """
        _check_images(x, 4)
        x = self.conv1(x.permute(0, 2, 3, 1))
        x = by_slices(self._norm_and_act, x, width=x.shape[-1], owner=self)
        return self.norm2(self.conv2(x))

    def _norm_and_act(self, x: Tensor) -> Tensor:
        return self.act(self.norm1(x))


class ResidualStem(BaseModule):
    """Convolutions with batch norm, two of them with a residual connection.

    The stem of `MLLA <https://arxiv.org/abs/2405.16605>`_.

    Args:
        in_channels (int): Image channels.
        embed_dims (int): Token channels.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        half, wide = embed_dims // 2, 4 * embed_dims
        self.conv1 = conv_bn(in_channels, half, 3, 2)
        self.conv2 = nn.Sequential(
            conv_bn(half, half, 3), conv_bn(half, half, 3, act=False)
        )
        self.conv3 = nn.Sequential(
            conv_bn(half, wide, 3, 2),
            conv_bn(wide, embed_dims, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H / 4), ceil(W / 4), C).

        Raises:
            UserError: If the image is smaller than one patch.
        """
        _check_images(x, 4)
        x = self.conv1(x)
        x = self.conv3(x + self.conv2(x))
        return x.permute(0, 2, 3, 1).contiguous()
