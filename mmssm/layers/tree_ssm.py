"""The mixer of `GrootV <https://arxiv.org/abs/2406.02395>`_, fixed trees."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import tree_scan
from ..scans.tree import cached_tree
from .slices import by_slices
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight


class TreeSSM(BaseModule):
    """A selective scan over a tree of the map's tokens.

    Projection, depthwise convolution and activation; each token's state is
    the sum of all tokens' values, each weighted with the transitions on the
    path between them (:func:`mmssm.ops.tree_scan`); states are normed, read
    out, normed, gated and projected. GrootV makes a tree of each image's
    features; here it is the same for all, see
    :func:`mmssm.scans.tree.tree_parents`.

    Args:
        embed_dims (int): Channels in and out.
        order (str): The route that the tree follows.
        pathways (float): Share of tokens that leave it for an earlier
            neighbour.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
    """

    def __init__(
        self,
        embed_dims: int,
        order: str,
        pathways: float,
        ssm_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        inner = int(ssm_ratio * embed_dims)
        self.order, self.pathways = order, pathways
        self.dt_rank = math.ceil(embed_dims / 16)
        self.in_proj = nn.Linear(embed_dims, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(
            inner, inner, 3, padding=1, groups=inner, bias=False
        )
        self.act = nn.SiLU()
        # Shapes and names are the original's, whose weight decay goes by them.
        self.x_proj_weight = nn.Parameter(
            linear_init(1, self.dt_rank + 2, inner)
        )
        self.dt_projs_weight = nn.Parameter(
            step_weight(1, inner, self.dt_rank)
        )
        self.dt_projs_bias = nn.Parameter(step_bias(1, inner))
        self.A_logs = nn.Parameter(s4d_log_rates(1, inner, 1))
        self.Ds = nn.Parameter(torch.ones(inner))
        self.h_norm = nn.LayerNorm(inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        inner = len(self.Ds)
        # Rebound at each step, so that no map outlives its use.
        tokens = F.linear(x, self.in_proj.weight[:inner])
        tokens = self.conv2d(tokens.permute(0, 3, 1, 2))
        tokens = self.act(tokens).permute(0, 2, 3, 1)
        states, readout = self.scan(tokens)
        return by_slices(
            self._read_out, states, readout, tokens, x, width=inner
        )

    def _read_out(
        self, states: Tensor, readout: Tensor, tokens: Tensor, x: Tensor
    ) -> Tensor:
        dtype = self.out_norm.weight.dtype
        y = readout * self._norm_states(states) + self.Ds * tokens
        y = self.out_norm(y.to(dtype))
        gate = F.linear(x, self.in_proj.weight[len(self.Ds) :])
        return self.out_proj(y * self.act(gate))

    def _norm_states(self, states: Tensor) -> Tensor:
        # In the states' own dtype, which may hold what 16 bits cannot.
        norm = self.h_norm
        weight, bias = (p.to(states.dtype) for p in (norm.weight, norm.bias))
        return F.layer_norm(
            states, norm.normalized_shape, weight, bias, norm.eps
        )

    def scan(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, H, W, C) of tokens, and their weights (B, H, W, 1)."""
        height, width = x.shape[1:3]
        projected = F.linear(x, self.x_proj_weight[0])
        dt, B, C = projected.split([self.dt_rank, 1, 1], -1)
        states = tree_scan(
            x.flatten(1, 2),
            dt.flatten(1, 2),
            -torch.exp(self.A_logs.squeeze(1)),
            B.flatten(1),
            parents=cached_tree(
                self.order, height, width, self.pathways, x.device
            ),
            dt_weight=self.dt_projs_weight[0],
            dt_bias=self.dt_projs_bias[0],
            # A sum over the map can pass float16's largest number.
            out_dtype=torch.float32 if x.dtype == torch.float16 else None,
        )
        return states.view(x.shape), C
