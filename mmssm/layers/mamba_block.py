"""Vim's residual block."""

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MambaBlock(BaseModule):
    """x + mixer(norm(x)), which also gives the mixer's result alone.

    Vim's and LocalVim's code carry the two addends apart from block to block;
    their sum is what this block carries.

    Args:
        norm (nn.Module): Maps (B, L, C) to (B, L, C).
        mixer (nn.Module): Maps (B, L, C) and the map's height and width to
            (B, L, C).
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

    def _forward(
        self, x: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        mixed = self.mixer(self.norm(x), height, width)
        return x + self.drop_path(mixed), mixed

    def forward(
        self, x: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) -> the block's tokens and the mixer's result."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(
                self._forward, x, height, width, use_reentrant=False
            )
        return self._forward(x, height, width)
