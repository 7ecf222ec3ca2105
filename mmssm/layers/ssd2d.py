"""VMamba's mixer with `Mamba-2 <https://arxiv.org/abs/2405.21060>`_ heads."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmssm.utils import UserError
from mmssm.utils.device import without_autocast

from ..ops import chunked_ssd
from ..scans import CROSS, cached_routes, parse_routes
from .map_mixer import MapMixer
from .ssm_init import linear_init


class SSD2D(MapMixer):
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
        routes (Sequence[str]): Routes without zero tokens. Defaults to
            VMamba's cross-scan.

    Raises:
        UserError: If a route is unknown, or if the inner channels do not
            divide into the heads.
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 64,
        ssm_ratio: float = 1.0,
        conv_bias: bool = False,
        act: str = 'GELU',
        routes: str | Sequence[str] = CROSS,
    ) -> None:
        inner = int(ssm_ratio * embed_dims)
        num_heads = math.ceil(embed_dims / 16)
        if inner % num_heads:
            raise UserError(
                f'{inner} inner channels do not divide into {num_heads} '
                'heads; choose embed_dims and ssm_ratio so that they do'
            )
        super().__init__(embed_dims, inner, conv_bias=conv_bias, act=act)
        self.d_state = d_state
        self.num_heads = num_heads
        self.routes = parse_routes(routes)
        num_routes = len(self.routes)
        heads = (num_routes, num_heads)
        self.x_proj_weight = nn.Parameter(
            linear_init(num_routes, num_heads + 2 * d_state, inner)
        )
        self.A_logs = nn.Parameter(torch.zeros(heads))
        self.Ds = nn.Parameter(torch.ones(*heads, inner // num_heads))
        self.dt_projs_bias = nn.Parameter(0.1 * torch.rand(heads))
        self.build_output()

    def scan(self, x: Tensor) -> Tensor:
        """Scan along all routes and add up: (B, H, W, C).

        The result is float32, or float64 if x is.
        """
        batch, height, width, _ = x.shape
        x = x.flatten(1, 2)
        num_routes, rows, inner = self.x_proj_weight.shape
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1))
        projected = projected.unflatten(-1, (num_routes, rows))
        index = cached_routes(self.routes, height, width, x.device).long()

        def along_routes(values: Tensor) -> Tensor:
            """(B, L, K, C) -> (B, T, K, C)."""
            order = index.t()[None, :, :, None]
            return values.gather(
                1, order.expand(batch, -1, -1, values.shape[-1])
            )

        tokens = along_routes(x.unsqueeze(2).expand(-1, -1, num_routes, -1))
        dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            dt, B, C = (
                along_routes(projected)
                .to(dtype)
                .split([self.num_heads, self.d_state, self.d_state], -1)
            )
            y = chunked_ssd(
                tokens.to(dtype).unflatten(-1, (self.num_heads, -1)),
                F.softplus(dt + self.dt_projs_bias),
                -torch.exp(self.A_logs),
                B,
                C,
                self.Ds,
            ).flatten(3)
        # Add every route's result back at its tokens.
        total = y.new_zeros(batch, height * width, inner)
        total = total.index_add(1, index.t().flatten(), y.flatten(1, 2))
        return total.unflatten(1, (height, width))
