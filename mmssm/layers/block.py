"""Residual blocks around a mixer."""

from collections.abc import Callable
from typing import Any

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
            self.ffn_dims = int(embed_dims * mlp_ratio)
            self.ffn = FFN(
                embed_dims,
                self.ffn_dims,
                act_cfg=dict(type='GELU'),
                dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            )
        else:
            self.ffn = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return _run(self._forward, x, with_cp=self.with_cp)

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
            # Stochastic depth drops whole samples, and a slice does not show
            # which sample a token belongs to.
            return self._feed_forward(x, mixed)
        return by_slices(
            self._feed_forward, x, mixed, width=self.ffn_dims, owner=self
        )

    def _feed_forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + mixed
        return self.ffn(self.norm2(x), identity=x)


class MambaBlock(BaseModule):
    """x + mixer(norm(x)), which also returns the mixer's output alone.

    Vim's and LocalVim's code pass the two addends on separately and add them
    in the next block. This block passes on their sum, which is the same.

    Args:
        norm (nn.Module): Maps (B, L, C) to (B, L, C).
        mixer (nn.Module): Takes tokens (B, L, C) and the map's height and
            width, and returns (B, L, C).
        drop_path_rate (float): Stochastic depth. Defaults to 0.
        with_cp (bool): Whether backward recomputes the block to save memory.
            Defaults to False.
    """

    def __init__(
        self,
        norm: nn.Module,
        mixer: nn.Module,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.drop_path = DropPath(drop_path_rate)
        self.with_cp = with_cp

    def forward(
        self, x: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) -> the block's and the mixer's output, (B, L, C).

        Stochastic depth drops only what is added to the former.
        """
        return _run(self._forward, x, height, width, with_cp=self.with_cp)

    def _forward(
        self, x: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        mixed = self.mixer(self.norm(x), height, width)
        return x + self.drop_path(mixed), mixed


def _run(forward: Callable[..., Any], *inputs: Any, with_cp: bool) -> Any:
    """``forward(*inputs)``, which backward recomputes if ``with_cp``."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False)
    return forward(*inputs)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def _encode(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
