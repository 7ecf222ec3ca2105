"""VMamba's mixer with `Mamba-2 <https://arxiv.org/abs/2405.21060>`_ heads."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import chunked_ssd
from ..scans import CROSS, parse_routes, routes
from .ssm_init import linear_init


class SSD2D(BaseModule):
    """State-space dual scan of a map along several routes.

    Like :class:`SS2D`, but channels form ``ceil(embed_dims / 16)`` heads with
    one decay each, which turns the scan into matrix products. Those need the
    tokens in route order, so each route reads a copy of the map.

    Args:
        embed_dims (int): Channels in and out.
        d_state (int): States per channel. Defaults to 64.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 1.
        conv_bias (bool): Whether the depthwise convolution has a bias.
            Defaults to False.
        act (str): Activation after the convolution. Defaults to 'GELU'.
        route_names (Sequence[str]): Routes without zero tokens. Defaults to
            VMamba's cross-scan.

    Raises:
        ValueError: If the inner channels do not divide into the heads.
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 64,
        ssm_ratio: float = 1.0,
        conv_bias: bool = False,
        act: str = 'GELU',
        route_names: str | Sequence[str] = CROSS,
    ) -> None:
        super().__init__()
        inner = int(ssm_ratio * embed_dims)
        self.d_state = d_state
        self.num_heads = math.ceil(embed_dims / 16)
        if inner % self.num_heads:
            raise ValueError(
                f'{inner} inner channels do not divide into {self.num_heads} '
                'heads; choose embed_dims and ssm_ratio so that they do'
            )
        self.route_names = parse_routes(route_names)
        num_routes = len(self.route_names)
        heads = (num_routes, self.num_heads)

        self.in_proj = nn.Linear(embed_dims, inner, bias=False)
        self.conv2d = nn.Conv2d(
            inner, inner, 3, padding=1, groups=inner, bias=conv_bias
        )
        self.act = build_activation_layer(dict(type=act))
        self.x_proj_weight = nn.Parameter(
            linear_init(num_routes, self.num_heads + 2 * d_state, inner)
        )
        self.A_logs = nn.Parameter(torch.zeros(heads))
        self.Ds = nn.Parameter(torch.ones(*heads, inner // self.num_heads))
        self.dt_projs_bias = nn.Parameter(0.1 * torch.rand(heads))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        x = self.in_proj(x).permute(0, 3, 1, 2)
        x = self.act(self.conv2d(x)).permute(0, 2, 3, 1).flatten(1, 2)
        # Not to x's dtype: the sum can pass float16's largest number.
        y = self.scan(x, height, width).to(self.out_norm.weight.dtype)
        y = self.out_norm(y)
        return self.out_proj(y.unflatten(1, (height, width)))

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """The scan of tokens (B, L, C) along all routes, summed, float32."""
        num_routes, rows, inner = self.x_proj_weight.shape
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1))
        projected = projected.unflatten(-1, (num_routes, rows))
        index = routes(self.route_names, height, width, x.device).long()

        def along_routes(values: Tensor) -> Tensor:
            """(B, L, K, C) -> (B, T, K, C)."""
            order = index.t()[None, :, :, None]
            return values.gather(
                1, order.expand(len(values), -1, -1, values.shape[-1])
            )

        tokens = along_routes(x.unsqueeze(2).expand(-1, -1, num_routes, -1))
        with torch.autocast(x.device.type, enabled=False):
            dt, B, C = (
                along_routes(projected)
                .float()
                .split([self.num_heads, self.d_state, self.d_state], -1)
            )
            y = chunked_ssd(
                tokens.float().unflatten(-1, (self.num_heads, -1)),
                F.softplus(dt + self.dt_projs_bias),
                -torch.exp(self.A_logs),
                B,
                C,
                self.Ds,
            ).flatten(3)
        # Add every route's result back at its tokens.
        out = y.new_zeros(len(x), height * width, inner)
        flat = index.t().flatten()
        return out.index_add(1, flat, y.flatten(1, 2))
