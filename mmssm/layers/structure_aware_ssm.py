"""The mixer of `Spatial-Mamba <https://arxiv.org/abs/2410.15091>`_."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import routed_selective_scan, state_fusion
from ..scans import cached_routes, parse_routes
from .slices import by_slices
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight

ROUTE = parse_routes(('h',))


class StructureAwareSSM(BaseModule):
    """One scan of the rows, whose states are fused with their neighbours.

    Projection, depthwise convolution and activation; the recurrence gives
    each token a state; :func:`mmssm.ops.state_fusion` makes of it a weighted
    sum with those of 24 tokens around it; this is then read out, normed,
    gated and projected.

    Args:
        embed_dims (int): Channels in and out.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
    """

    def __init__(self, embed_dims: int, ssm_ratio: float = 2.0) -> None:
        super().__init__()
        inner = int(ssm_ratio * embed_dims)
        self.dt_rank = math.ceil(embed_dims / 16)
        self.in_proj = nn.Linear(embed_dims, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.act = nn.SiLU()
        # Shapes and names are the original's, whose weight decay goes by them.
        self.x_proj_weight = nn.Parameter(linear_init(self.dt_rank + 2, inner))
        self.dt_projs_weight = nn.Parameter(step_weight(inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(step_bias(inner))
        self.A_logs = nn.Parameter(s4d_log_rates(1, inner, 1))
        self.Ds = nn.Parameter(torch.ones(inner))
        self.fusion_weight = nn.Parameter(torch.ones(3, inner, 3, 3))
        self.fusion_alpha = nn.Parameter(torch.ones(3))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        inner = len(self.Ds)
        # Rebound at each step, so that no map outlives its use.
        tokens = F.linear(x, self.in_proj.weight[:inner])
        tokens = self.conv2d(tokens.permute(0, 3, 1, 2))
        tokens = self.act(tokens).permute(0, 2, 3, 1)
        y = self.scan(tokens)
        del tokens
        # The gate is projected only now: it need not live through the scan.
        return by_slices(self._gate_and_project, y, x, width=inner)

    def _gate_and_project(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.out_norm(y.to(self.out_norm.weight.dtype))
        gate = F.linear(x, self.in_proj.weight[y.shape[-1] :])
        return self.out_proj(y * self.act(gate))

    def scan(self, x: Tensor) -> Tensor:
        """Scan, fuse and read out: (B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        projected = F.linear(x, self.x_proj_weight)
        dt, B, C = projected.split([self.dt_rank, 1, 1], -1)
        states = routed_selective_scan(
            x.flatten(1, 2),
            dt.flatten(1, 2).unsqueeze(2),
            -torch.exp(self.A_logs).unsqueeze(0),
            B.flatten(1, 2).unsqueeze(2),
            routes=cached_routes(ROUTE, height, width, x.device),
            dt_weight=self.dt_projs_weight.unsqueeze(0),
            dt_bias=self.dt_projs_bias.unsqueeze(0),
            output='states',
            # A sum of 25 states can pass float16's largest number.
            out_dtype=torch.float32 if x.dtype == torch.float16 else None,
        )
        return state_fusion(
            states.view(x.shape),
            self.fusion_weight,
            self.fusion_alpha,
            C.squeeze(-1),
            self.Ds,
            x,
        )
