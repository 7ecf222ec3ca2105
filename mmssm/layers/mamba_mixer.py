"""Mamba's mixer for image tokens, along several routes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import routed_selective_scan
from ..scans import cached_routes, parse_routes
from .route_merge import build_merge, gather_by_route, released_inverse_index
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight


class MambaMixer(BaseModule):
    """Selective scans of a token sequence along several routes.

    The tokens are projected and gathered in the order of each route. Each
    route has a causal depthwise convolution, an activation and a scan, with
    weights of its own, as in `Mamba <https://arxiv.org/abs/2312.00752>`_. The
    results of all routes have one gate; they are merged and projected. In
    :class:`SS2D`, in contrast, the convolution acts on the map, before the
    routes.

    Args:
        embed_dims (int): Channels in and out.
        routes (Sequence[str]): See :mod:`mmssm.scans`.
        merge (str): 'mean', 'gated' or 'searched', see
            :func:`mmssm.layers.route_merge.build_merge`.
        d_state (int): States per channel. Defaults to 16.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
        conv_size (int): Steps that the convolution sees. Defaults to 4.
        class_token (bool): Whether there is a class token in the middle of the
            map's tokens. Defaults to False.
        released_inverse (bool): Whether results are put back as LocalMamba's
            released code does it, see
            :func:`mmssm.layers.route_merge.released_inverse_index`. Defaults
            to False.
        out_proj_scale (float): Factor of the last projection's initial
            weights, for models with many residual blocks. Defaults to 1.
        init_std (float, optional): Standard deviation of the truncated normal
            from which the initial weights of all linear maps but the last are
            drawn. These include the projections of the step sizes, whose bias
            is then 0, as in LocalMamba. Defaults to None, the initial weights
            of PyTorch and Mamba.

    Raises:
        UserError: If a route or ``merge`` is unknown.
    """

    def __init__(
        self,
        embed_dims: int,
        routes: str | Sequence[str],
        merge: str,
        d_state: int = 16,
        ssm_ratio: float = 2.0,
        conv_size: int = 4,
        class_token: bool = False,
        released_inverse: bool = False,
        out_proj_scale: float = 1.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.inner_dims = inner = int(ssm_ratio * embed_dims)
        self.d_state = d_state
        self.dt_rank = rank = math.ceil(embed_dims / 16)
        self.routes = parse_routes(routes)
        self.class_token = class_token
        self.released_inverse = released_inverse
        num_routes = len(self.routes)
        self.in_proj = nn.Linear(embed_dims, inner, bias=False)
        self.gate_proj = nn.Linear(embed_dims, inner, bias=False)
        self.act = nn.SiLU()
        # Initialized as nn.Conv1d: a channel sees conv_size steps of itself.
        self.conv_weight = nn.Parameter(
            linear_init(num_routes, inner, conv_size)
        )
        bound = conv_size**-0.5
        # Biases have one axis, so that weight decay spares them.
        self.conv_bias = nn.Parameter(
            torch.empty(num_routes * inner).uniform_(-bound, bound)
        )
        self.x_proj_weight = nn.Parameter(
            linear_init(num_routes, rank + 2 * d_state, inner)
        )
        self.dt_projs_weight = nn.Parameter(
            step_weight(num_routes, inner, rank)
        )
        self.dt_projs_bias = nn.Parameter(step_bias(num_routes * inner))
        self.A_logs = nn.Parameter(s4d_log_rates(num_routes, inner, d_state))
        self.Ds = nn.Parameter(torch.ones(num_routes * inner))
        self.merge = build_merge(merge, inner, num_routes)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)
        if init_std is not None:
            self._draw_normal(init_std)
        with torch.no_grad():
            self.out_proj.weight.mul_(out_proj_scale)

    def _draw_normal(self, std: float) -> None:
        gates = [m for m in self.merge.modules() if isinstance(m, nn.Linear)]
        linear = (self.in_proj, self.gate_proj, *gates)
        weights = [m.weight for m in linear]
        for weight in (*weights, self.x_proj_weight, self.dt_projs_weight):
            nn.init.trunc_normal_(weight, std=std)
        for bias in (*(m.bias for m in gates), self.dt_projs_bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Mix tokens.

        Args:
            x (Tensor): Tokens (B, L, C) of the map, row after row, with the
                class token, if any, in their middle.
            height (int): Rows of the map.
            width (int): Columns of the map.

        Returns:
            Tensor: (B, L, C).
        """
        y = self.scan(self.in_proj(x), height, width)
        gate = self.act(self.gate_proj(x))
        y = self.merge(y * gate.unsqueeze(1))
        return self.out_proj(y.to(x.dtype))

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """Convolve and scan tokens (B, L, C) along the routes: (B, K, L, C).

        Zero tokens, where a route leaves the map, are scanned, too: the
        convolution gives them values.
        """
        length = x.shape[1]
        routes = cached_routes(
            self.routes, height, width, x.device, self.class_token
        ).long()
        num_routes, seq_len = routes.shape
        # One token of zeros, at index L, serves as every zero token.
        token_at = torch.where(routes < 0, length, routes)
        # The steps one after the other, each with all routes as channels.
        u = F.pad(x, (0, 0, 0, 1)).index_select(1, token_at.t().flatten())
        u = u.unflatten(1, (seq_len, num_routes))
        u = self.act(self._convolve(u.flatten(2))).view_as(u)
        y = self._scan_sequences(u)
        # The step at which each route visits a token; the last column, of the
        # zero tokens, is dropped.
        step = torch.arange(seq_len, device=x.device).expand(num_routes, -1)
        step_of = step.new_zeros(num_routes, length + 1)
        step_of = step_of.scatter(1, token_at, step)[:, :length]
        if self.released_inverse:
            index = self._released_inverse_index(height, width, x.device)
            step_of = step_of.gather(1, index)
        return gather_by_route(y.transpose(1, 2), step_of)

    def _convolve(self, x: Tensor) -> Tensor:
        """Causal depthwise convolutions along the steps of (B, T, K * C)."""
        seq_len, conv_size = x.shape[1], self.conv_weight.shape[-1]
        # As an image of one row, channels-last: this needs no copies.
        y = F.conv2d(
            x.transpose(1, 2).unsqueeze(2),
            self.conv_weight.view(-1, 1, 1, conv_size),
            self.conv_bias,
            padding=(0, conv_size - 1),
            groups=x.shape[2],
        )
        return y[:, :, 0, :seq_len].transpose(1, 2)

    def _scan_sequences(self, u: Tensor) -> Tensor:
        """The recurrence of K sequences (B, T, K, C), each in order.

        To the op they are one map of T * K tokens, on which route k visits
        every K-th token.
        """
        seq_len, num_routes = u.shape[1:3]
        projected = torch.einsum('btkc,krc->btkr', u, self.x_proj_weight)
        projected = projected.flatten(1, 2).unsqueeze(2)
        # Each token is visited by one route only, so its values may stand for
        # all routes.
        dt, B, C = projected.expand(-1, -1, num_routes, -1).split(
            [self.dt_rank, self.d_state, self.d_state], -1
        )
        order = torch.arange(
            seq_len * num_routes, device=u.device, dtype=torch.int32
        )
        y = routed_selective_scan(
            u.flatten(1, 2),
            dt,
            -torch.exp(self.A_logs).view(num_routes, -1, self.d_state),
            B,
            C,
            self.Ds.view(num_routes, -1),
            routes=order.view(seq_len, num_routes).t(),
            dt_weight=self.dt_projs_weight,
            dt_bias=self.dt_projs_bias.view(num_routes, -1),
        )
        return y.unflatten(1, (seq_len, num_routes))

    def _released_inverse_index(
        self, height: int, width: int, device: torch.device
    ) -> Tensor:
        """:func:`released_inverse_index` for tokens with a class token."""
        index = released_inverse_index(self.routes, height, width, device)
        if not self.class_token:
            return index
        middle = height * width // 2
        index = index + (index >= middle)
        class_token = index.new_full((len(index), 1), middle)
        return torch.cat(
            [index[:, :middle], class_token, index[:, middle:]], 1
        )
