"""Norms that differ from PyTorch's in their dtypes or in what they count as.

All are layer norms to those who ask, such as mmengine's constructors of
optimizers, which treat norms by their class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScanNorm(nn.LayerNorm):
    """Layer norm in the wider of the dtypes of its input and its weights.

    The result of a scan is float32 where the 16 bits of the model could not
    hold it, and has 16 bits under autocast, where weights are float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C) of that dtype."""
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return F.layer_norm(
            x.to(dtype),
            self.normalized_shape,
            self.weight.to(dtype),
            self.bias.to(dtype),
            self.eps,
        )


class RMSNorm(nn.LayerNorm):
    """`Root mean square norm <https://arxiv.org/abs/1910.07467>`_.

    PyTorch's own is no layer norm, and so escapes options such as
    ``norm_decay_mult`` of mmengine.

    Args:
        channels (int): Channels, C.
        eps (float): Added to the mean square. Defaults to 1e-5.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
