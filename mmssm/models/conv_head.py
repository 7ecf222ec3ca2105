"""A classification head with a convolution before the mean."""

from typing import Any

import torch
from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn


@MODELS.register_module()
class ConvClsHead(LinearClsHead):
    """1 x 1 convolution, batch norm, GELU, mean over the map, linear layer.

    The head of `GrootV <https://arxiv.org/abs/2406.02395>`_.

    Args:
        num_classes (int): Classes.
        in_channels (int): Channels of the backbone's last map.
        mid_channels (int): Channels of the convolution.
        **kwargs: Arguments of mmpretrain's ``LinearClsHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        mid_channels: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, mid_channels, **kwargs)
        self.conv = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(mid_channels)
        self.act = nn.GELU()

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Maps, the last one (B, C, H, W) -> (B, mid_channels)."""
        x = self.act(self.bn(self.conv(feats[-1])))
        return torch.flatten(x.mean((2, 3)), 1)
