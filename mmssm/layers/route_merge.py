"""How the results of several routes become one map.

Each maps the routes' results (B, K, L, C) to tokens (B, L, C).
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn


class RouteMean(nn.Module):
    """The mean over routes, of `Vim <https://arxiv.org/abs/2401.09417>`_."""

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        return y.mean(1)


class GatedSum(BaseModule):
    """The sum over routes, whose channels are gated by their mean tokens.

    The channel gate of `LocalMamba <https://arxiv.org/abs/2403.09338>`_,
    which all routes share. The paper's gate of tokens is not in the released
    code, nor here.

    Args:
        channels (int): Channels, C.
        reduction (int): Channels / channels between the gate's two linear
            maps. Defaults to 8.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.reduce = nn.Linear(channels, channels // reduction)
        self.act = nn.GELU()
        self.select = nn.Linear(channels // reduction, channels)

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        return _weighted_sum(y, self.gate(y))

    def gate(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, K, 1, C), between 0 and 1, in y's dtype."""
        mean = self.norm(y.to(self.norm.weight.dtype)).mean(2, keepdim=True)
        gate = torch.sigmoid(self.select(self.act(self.reduce(mean))))
        return gate.to(y.dtype)


class SearchedSum(GatedSum):
    """The gated routes, normed and weighted with learnt probabilities.

    LocalMamba's search for scan directions: after training, the routes with
    the largest weights are kept, see
    :mod:`mmssm.analysis.direction_search`.

    Args:
        channels (int): Channels, C.
        num_routes (int): Routes, K.
    """

    def __init__(self, channels: int, num_routes: int) -> None:
        super().__init__(channels)
        self.weights = nn.Parameter(1e-3 * torch.randn(num_routes))

    def probabilities(self) -> Tensor:
        """The routes' shares (K,), which sum to 1."""
        return self.weights.softmax(0)

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        y = y * self.gate(y)
        y = F.layer_norm(y, y.shape[-1:])
        return _weighted_sum(y, self.probabilities().view(1, -1, 1, 1))


def _weighted_sum(y: Tensor, weights: Tensor) -> Tensor:
    """The sum over K of (B, K, L, C), without a product as large as that."""
    total = y[:, 0] * weights[:, 0]
    for k in range(1, y.shape[1]):
        total = torch.addcmul(total, y[:, k], weights[:, k])
    return total


def build_merge(kind: str, channels: int, num_routes: int) -> nn.Module:
    """A merge by name.

    Args:
        kind (str): 'mean', 'gated' or 'searched'.
        channels (int): Channels, C.
        num_routes (int): Routes, K.

    Raises:
        ValueError: If there is no such merge.
    """
    if kind == 'mean':
        return RouteMean()
    if kind == 'gated':
        return GatedSum(channels)
    if kind == 'searched':
        return SearchedSum(channels, num_routes)
    raise ValueError(
        f"merge must be 'mean', 'gated' or 'searched', got {kind!r}"
    )


def released_order(
    route_names: tuple[str, ...],
    height: int,
    width: int,
    device: torch.device,
) -> Tensor:
    """Which token's result LocalMamba's released code puts at a token.

    It puts the results of ``v`` and ``v_flip`` back as if the map were
    ``width`` x ``height``; others, and square maps, are right.

    Args:
        route_names (tuple[str, ...]): Names of K routes.
        height (int): Rows of the map.
        width (int): Columns of the map.
        device (torch.device): Where the result lies.

    Returns:
        Tensor: (K, H * W) int64.
    """
    token = torch.arange(height * width, device=device)
    step = token % height * width + token // height
    swapped = step % height * width + step // height
    return torch.stack(
        [swapped if name in ('v', 'v_flip') else token for name in route_names]
    )


def take_tokens(y: Tensor, order: Tensor) -> Tensor:
    """``y[b, k, order[k, l]]`` for results (B, K, T, C) and (K, L) indices."""
    routes = torch.arange(len(order), device=y.device).unsqueeze(1)
    return y[:, routes, order]
