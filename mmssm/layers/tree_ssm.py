"""The mixer of GrootV, with a fixed tree."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import tree_scan
from ..scans.tree import cached_tree
from .map_mixer import MapMixer
from .norms import ScanNorm
from .slices import by_slices


class TreeSSM(MapMixer):
    """A selective scan over a tree of the map's tokens.

    The mixer of `GrootV <https://arxiv.org/abs/2406.02395>`_. Each token's
    state is the sum of all tokens' values, each multiplied by the decays
    along the path between the two tokens, see :func:`mmssm.ops.tree_scan`.
    States are normed before they are read out. GrootV builds a tree from the
    features of each image. Here the tree depends on the map's size alone, see
    :func:`mmssm.scans.tree.tree_parents`.

    Args:
        embed_dims (int): Channels in and out.
        curve (str): The route that the tree follows, without zero tokens.
        pathways (float): Share of tokens whose parent is their earliest
            neighbor instead of the token before them, 0 to 1.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
    """

    def __init__(
        self,
        embed_dims: int,
        curve: str,
        pathways: float,
        ssm_ratio: float = 2.0,
    ) -> None:
        inner = int(ssm_ratio * embed_dims)
        super().__init__(embed_dims, inner, gate=True)
        self.curve, self.pathways = curve, pathways
        self.build_recurrence(1, d_state=1)
        self.h_norm = ScanNorm(inner)
        self.build_output()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        tokens = self.project_in(x)
        states, C = self.scan_states(tokens)
        return by_slices(
            self._read_out,
            states,
            C,
            tokens,
            x,
            width=self.inner_dims,
            owner=self,
        )

    def _read_out(
        self, states: Tensor, C: Tensor, tokens: Tensor, x: Tensor
    ) -> Tensor:
        y = C * self.h_norm(states) + self.Ds * tokens
        return self.project_out(y, x)

    def scan_states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """States of tokens (B, H, W, C) and their read-out (B, H, W, 1)."""
        height, width = x.shape[1:3]
        projected = F.linear(x, self.x_proj_weight[0])
        dt, B, C = projected.split([self.dt_rank, 1, 1], -1)
        states = tree_scan(
            x.flatten(1, 2),
            dt.flatten(1, 2),
            -torch.exp(self.A_logs.squeeze(1)),
            B.flatten(1),
            parents=cached_tree(
                self.curve, height, width, self.pathways, x.device
            ),
            dt_weight=self.dt_projs_weight[0],
            dt_bias=self.dt_projs_bias[0],
        )
        return states.view(x.shape), C
