"""A residual block: mixer, then feed-forward network."""

import torch
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .slices import by_slices


class VSSBlock(BaseModule):
    """x + mixer(norm1(x)), then x + ffn(norm2(x)) if there is an FFN.

    With ``cpe``, a depthwise convolution is added before mixer and FFN: the
    conditional positional encodings of `CPVT
    <https://arxiv.org/abs/2102.10882>`_.

    Args:
        embed_dims (int): Channels.
        mixer (nn.Module): Maps (B, H, W, C) to (B, H, W, C).
        mlp_ratio (float): Hidden channels of the FFN / ``embed_dims``; 0 for
            none. Defaults to 4.
        drop_path_rate (float): Stochastic depth. Defaults to 0.
        with_cp (bool): Whether backward recomputes the block to save memory.
            Defaults to False.
        cpe (bool): Whether tokens get positional encodings. Defaults to
            False.
    """

    def __init__(
        self,
        embed_dims: int,
        mixer: nn.Module,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        cpe: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.cpe1 = _depthwise(embed_dims) if cpe else None
        self.cpe2 = _depthwise(embed_dims) if cpe and mlp_ratio > 0 else None
        self.norm1 = nn.LayerNorm(embed_dims)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path_rate)
        if mlp_ratio > 0:
            self.norm2 = nn.LayerNorm(embed_dims)
            self.ffn = FFN(
                embed_dims,
                int(embed_dims * mlp_ratio),
                act_cfg=dict(type='GELU'),
                dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            )
        else:
            self.ffn = None

    def _forward(self, x: Tensor) -> Tensor:
        if self.cpe1 is not None:
            x = x + _encode(self.cpe1, x)
        mixed = self.drop_path(self.mixer(self.norm1(x)))
        if self.ffn is None:
            return x + mixed
        if self.cpe2 is not None:
            x = x + mixed
            mixed = _encode(self.cpe2, x)
        if self.training:
            # Stochastic depth drops samples, which slices do not show.
            return self._feed_forward(x, mixed)
        width = self.ffn.feedforward_channels
        return by_slices(self._feed_forward, x, mixed, width=width)

    def _feed_forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + mixed
        return self.ffn(self.norm2(x), identity=x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def _encode(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
