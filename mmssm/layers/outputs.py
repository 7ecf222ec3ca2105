"""The modules whose outputs are a backbone's maps, (B, C, H, W).

Tools that draw what a layer sees, such as Grad-CAM, need maps of this layout.
"""

from torch import Tensor, nn


class MapNorm(nn.LayerNorm):
    """Layer norm of a map's tokens, then channels in front."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, C, H, W), a view of channels-last memory."""
        return super().forward(x).permute(0, 3, 1, 2)


class ToMap(nn.Module):
    """Tokens as a map, for models that have no :class:`MapNorm`."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H * W, C) -> (B, C, H, W), a view of channels-last memory."""
        return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)
