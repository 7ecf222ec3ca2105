"""The mixer of `Spatial-Mamba <https://arxiv.org/abs/2410.15091>`_."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import routed_selective_scan, state_fusion
from ..scans import cached_routes
from .map_mixer import MapMixer

_ROUTES = ('h',)


class StructureAwareSSM(MapMixer):
    """One scan of the rows, then a fusion of neighboring states.

    The recurrence gives each token one state per channel.
    :func:`mmssm.ops.state_fusion` replaces it by a weighted sum of the states
    of the token and of 24 tokens around it, and reads the sum out.

    Args:
        embed_dims (int): Channels in and out.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
    """

    def __init__(self, embed_dims: int, ssm_ratio: float = 2.0) -> None:
        inner = int(ssm_ratio * embed_dims)
        super().__init__(embed_dims, inner, gate=True, conv_bias=True)
        self.build_recurrence(d_state=1)
        self.fusion_weight = nn.Parameter(torch.ones(3, inner, 3, 3))
        self.fusion_alpha = nn.Parameter(torch.ones(3))
        self.build_output()

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
            routes=cached_routes(_ROUTES, height, width, x.device),
            dt_weight=self.dt_projs_weight.unsqueeze(0),
            dt_bias=self.dt_projs_bias.unsqueeze(0),
            output='states',
        )
        return state_fusion(
            states.view(x.shape),
            self.fusion_weight,
            self.fusion_alpha,
            C.squeeze(-1),
            self.Ds,
            x,
        )
