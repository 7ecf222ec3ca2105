"""How the results of several routes become one map.

Each merge takes the results of all routes (B, K, L, C) and returns tokens
(B, L, C).
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmssm.utils import UserError

from .norms import ScanNorm


class RouteMean(nn.Module):
    """The mean over routes, of `Vim <https://arxiv.org/abs/2401.09417>`_."""

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        return y.mean(1)


class GatedSum(BaseModule):
    """The sum over routes, each with its channels gated.

    The gate of a route's channels is computed from the mean of its tokens, by
    weights that all routes share: the channel gate of `LocalMamba
    <https://arxiv.org/abs/2403.09338>`_. The paper's second gate, of tokens,
    is not in the released code, and not here.

    Args:
        channels (int): Channels, C.
        reduction (int): ``channels`` / hidden channels of the gate. Defaults
            to 8.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.norm = ScanNorm(channels)
        self.reduce = nn.Linear(channels, channels // reduction)
        self.act = nn.GELU()
        self.select = nn.Linear(channels // reduction, channels)

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        return _weighted_sum(y, self.gate(y))

    def gate(self, y: Tensor) -> Tensor:
        """Gates of y: (B, K, L, C) -> (B, K, 1, C), 0 to 1, in y's dtype."""
        mean = self.norm(y).mean(2, keepdim=True)
        mean = mean.to(self.norm.weight.dtype)
        gate = torch.sigmoid(self.select(self.act(self.reduce(mean))))
        return gate.to(y.dtype)


class SearchedSum(GatedSum):
    """The sum of gated and normed routes, weighted with learned probabilities.

    This is LocalMamba's search for scan directions: after training, the
    routes with the largest weights are kept, see
    :mod:`mmssm.analysis.direction_search`.

    Args:
        channels (int): Channels, C.
        num_routes (int): Routes, K.
    """

    def __init__(self, channels: int, num_routes: int) -> None:
        super().__init__(channels)
        self.weights = nn.Parameter(1e-3 * torch.randn(num_routes))

    def probabilities(self) -> Tensor:
        """The weights of the routes (K,), which sum to 1."""
        return self.weights.softmax(0)

    def forward(self, y: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, L, C)."""
        y = y * self.gate(y)
        y = F.layer_norm(y, y.shape[-1:])
        return _weighted_sum(y, self.probabilities().view(1, -1, 1, 1))


def _weighted_sum(y: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over K of (B, K, L, C), without a copy of that size."""
    total = y[:, 0] * weights[:, 0]
    for k in range(1, y.shape[1]):
        total = torch.addcmul(total, y[:, k], weights[:, k])
    return total


def build_merge(kind: str, channels: int, num_routes: int) -> nn.Module:
    """A merge by its name.

    Args:
        kind (str): 'mean', 'gated' or 'searched'.
        channels (int): Channels, C.
        num_routes (int): Routes, K.

    Raises:
        UserError: If there is no such merge.
    """
    if kind == 'mean':
        return RouteMean()
    if kind == 'gated':
        return GatedSum(channels)
    if kind == 'searched':
        return SearchedSum(channels, num_routes)
    raise UserError(
        f"merge must be 'mean', 'gated' or 'searched', got {kind!r}"
    )


def released_inverse_index(
    routes: tuple[str, ...], height: int, width: int, device: torch.device
) -> Tensor:
    """Which token's result LocalMamba's released code puts at each token.

    The code puts the results of ``v`` and ``v_flip`` back as if the map were
    ``width`` x ``height``, which is wrong unless the map is square. Results
    of other routes are put back right.

    Args:
        routes (tuple[str, ...]): Names of K routes.
        height (int): Rows of the map.
        width (int): Columns of the map.
        device (torch.device): Device of the result.

    Returns:
        Tensor: (K, H * W) int64, for :func:`gather_by_route`.
    """
    token = torch.arange(height * width, device=device)
    step = token % height * width + token // height
    swapped = step % height * width + step // height
    return torch.stack(
        [swapped if name in ('v', 'v_flip') else token for name in routes]
    )


def gather_by_route(y: Tensor, index: Tensor) -> Tensor:
    """Results (B, K, T, C) at indices (K, L): ``y[b, k, index[k, l]]``."""
    route = torch.arange(len(index), device=y.device).unsqueeze(1)
    return y[:, route, index]
