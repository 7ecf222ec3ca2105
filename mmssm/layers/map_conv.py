"""A convolution on channels-last maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from .slices import runs_eagerly_on_cpu


class MapConv2d(nn.Conv2d):
    """``nn.Conv2d`` from (B, H, W, C) to (B, H', W', C').

    Parameters have Conv2d's names and shapes.

    Args:
        in_channels (int): Channels in.
        out_channels (int): Channels out.
        kernel_size (int): Side of the window.
        stride (int): Step of the window.
        padding (int): Zeros added on every side. Defaults to 0.
        bias (bool): Whether there is a bias. Defaults to True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        if self._is_cheaper_as_product(x):
            return self._product(x)
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _is_cheaper_as_product(self, x: Tensor) -> bool:
        """Whether the map has fewer windows than the weight has filters.

        The matrix product copies the windows (tokens out, C * k * k), while
        oneDNN's convolution reorders the weight (C', C * k * k) in each call.
        """
        if not runs_eagerly_on_cpu(x):
            return False
        area = self.stride[0] * self.stride[1]
        return x.shape[:3].numel() < self.out_channels * area

    def _product(self, x: Tensor) -> Tensor:
        """The convolution as one matrix product with all windows."""
        zeros = int(self.padding[0])
        x = F.pad(x, (0, 0, zeros, zeros, zeros, zeros))
        for axis in (1, 2):
            x = x.unfold(axis, self.kernel_size[0], self.stride[0])
        return self._multiply(x.flatten(3))

    def _multiply(self, windows: Tensor) -> Tensor:
        return F.linear(windows, self.weight.flatten(1), self.bias)
