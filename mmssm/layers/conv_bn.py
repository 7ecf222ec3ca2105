"""A convolution with batch norm and activation, as used by MLLA."""

from collections import OrderedDict

from torch import nn


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    norm: bool = True,
    act: bool = True,
) -> nn.Sequential:
    """Convolution ``conv``, batch norm ``bn`` and ReLU on (B, C, H, W).

    Not mmcv's ConvModule: that draws a convolution's initial weights from a
    wider distribution than PyTorch, and the originals use PyTorch's.
    """
    parts = OrderedDict[str, nn.Module]()
    parts['conv'] = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
    )
    if norm:
        parts['bn'] = nn.BatchNorm2d(out_channels)
    if act:
        parts['act'] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)
