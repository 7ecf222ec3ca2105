"""SS2D, the mixer of `VMamba <https://arxiv.org/abs/2401.10166>`_."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import routed_selective_scan
from ..scans import CROSS, cached_routes, parse_routes
from .route_merge import build_merge, released_order, take_tokens
from .slices import by_slices
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight


class SS2D(BaseModule):
    """Selective scan of a map along several routes.

    Projection, depthwise convolution, activation, the routed scan, norm,
    optionally a gate, projection. Parameters that belong to a route are
    packed along their first axis in the order of ``route_names``.

    Args:
        embed_dims (int): Channels in and out.
        d_state (int): States per channel. Defaults to 1.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 1.
        gate (bool): Whether a second branch gates the result. Defaults to
            False.
        conv_bias (bool): Whether the depthwise convolution has a bias.
            Defaults to False.
        act (str): Activation of convolution and gate. Defaults to 'SiLU'.
        ssm_init (str): 's4d' (log-uniform steps) or 'uniform' (VMamba's
            "v2": unit rates, 0.1 * U(0, 1) steps). Defaults to 's4d'.
        route_names (Sequence[str]): See :mod:`mmssm.scans`. Defaults to
            VMamba's cross-scan.
        merge (str, optional): How routes become one map: 'gated' or
            'searched', see :func:`mmssm.layers.route_merge.build_merge`.
            Defaults to None, their plain sum.
        released_inverse (bool): With ``merge``, whether results are put back
            as LocalMamba's code does it, see
            :func:`mmssm.layers.route_merge.released_order`. Defaults to
            False.
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        gate: bool = False,
        conv_bias: bool = False,
        act: str = 'SiLU',
        ssm_init: str = 's4d',
        route_names: str | Sequence[str] = CROSS,
        merge: str | None = None,
        released_inverse: bool = False,
    ) -> None:
        super().__init__()
        inner = int(ssm_ratio * embed_dims)
        self.d_state = d_state
        self.dt_rank = math.ceil(embed_dims / 16)
        self.gate = gate
        self.route_names = parse_routes(route_names)
        num_routes = len(self.route_names)

        self.in_proj = nn.Linear(
            embed_dims, inner * (2 if gate else 1), bias=False
        )
        self.conv2d = nn.Conv2d(
            inner, inner, 3, padding=1, groups=inner, bias=conv_bias
        )
        self.act = build_activation_layer(dict(type=act))
        self.x_proj_weight = nn.Parameter(
            linear_init(num_routes, self.dt_rank + 2 * d_state, inner)
        )
        self._init_recurrence(ssm_init, num_routes, inner)
        self.merge = merge and build_merge(merge, inner, num_routes)
        self.released_inverse = released_inverse
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)

    def _init_recurrence(self, kind: str, num_routes: int, inner: int) -> None:
        """Shapes and names are the original's, whose checkpoints and weight
        decay rules (by number of axes) depend on them.
        """
        rank = self.dt_rank
        if kind == 's4d':
            weight = step_weight(num_routes, inner, rank)
            bias = step_bias(num_routes, inner)
            log_rates = s4d_log_rates(num_routes, inner, self.d_state)
        elif kind == 'uniform':
            weight = 0.1 * torch.rand(num_routes, inner, rank)
            bias = 0.1 * torch.rand(num_routes, inner)
            log_rates = torch.zeros(num_routes * inner, self.d_state)
        else:
            raise ValueError(
                f"ssm_init must be 's4d' or 'uniform', got {kind!r}"
            )
        self.dt_projs_weight = nn.Parameter(weight)
        self.dt_projs_bias = nn.Parameter(bias)
        self.A_logs = nn.Parameter(log_rates)
        self.Ds = nn.Parameter(torch.ones(num_routes * inner))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        inner = self.x_proj_weight.shape[-1]
        # Rebound at each step, so that no map outlives its use.
        if self.gate:
            tokens = F.linear(x, self.in_proj.weight[:inner])
        else:
            tokens = self.in_proj(x)
        tokens = self.conv2d(tokens.permute(0, 3, 1, 2))
        tokens = self.act(tokens).permute(0, 2, 3, 1).flatten(1, 2)
        y = self.scan(tokens, *x.shape[1:3]).unflatten(1, x.shape[1:3])
        del tokens
        # The gate is projected only now: it need not live through the scan.
        return by_slices(self._gate_and_project, y, x, width=inner)

    def _gate_and_project(self, y: Tensor, x: Tensor) -> Tensor:
        inner = y.shape[-1]
        y = self.out_norm(y.to(self.out_norm.weight.dtype))
        if self.gate:
            y = y * self.act(F.linear(x, self.in_proj.weight[inner:]))
        return self.out_proj(y)

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """The routed scan of tokens (B, L, C) on their H x W map, merged."""
        num_routes, rows, inner = self.x_proj_weight.shape
        # A projection acts on single tokens, so it needs no route order: one
        # matrix product serves all routes.
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1))
        dt, B, C = projected.unflatten(-1, (num_routes, rows)).split(
            [self.dt_rank, self.d_state, self.d_state], -1
        )
        y = routed_selective_scan(
            x,
            dt,
            -torch.exp(self.A_logs).view(num_routes, inner, -1),
            B,
            C,
            self.Ds.view(num_routes, inner),
            routes=cached_routes(self.route_names, height, width, x.device),
            dt_weight=self.dt_projs_weight,
            dt_bias=self.dt_projs_bias,
            output='routes' if self.merge else 'sum',
            # The sum over routes can pass float16's largest number.
            out_dtype=torch.float32 if x.dtype == torch.float16 else None,
        )
        if not self.merge:
            return y
        if self.released_inverse:
            order = released_order(self.route_names, height, width, x.device)
            y = take_tokens(y, order)
        return self.merge(y)
