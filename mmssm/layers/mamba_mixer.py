"""Mamba's mixer for image tokens, along several routes."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import routed_selective_scan
from ..scans import cached_routes, parse_routes
from .route_merge import build_merge, released_order, take_tokens
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight


class MambaMixer(BaseModule):
    """Selective scans of a token sequence along several routes.

    Projection; on each route a causal depthwise convolution, activation and
    the scan of `Mamba <https://arxiv.org/abs/2312.00752>`_ with weights of
    its own; the common gate; merging and projection. Unlike
    :class:`SS2D`, whose convolution is the map's and comes before the
    routes, each route scans other values: those are gathered in its order.

    Args:
        embed_dims (int): Channels in and out.
        route_names (Sequence[str]): See :mod:`mmssm.scans`.
        merge (str): 'mean', 'gated' or 'searched', see
            :func:`mmssm.layers.route_merge.build_merge`.
        d_state (int): States per channel. Defaults to 16.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 2.
        conv_size (int): Steps that the convolution sees. Defaults to 4.
        class_token (bool): Whether a class token stands in the middle of the
            map's tokens. Defaults to False.
        released_inverse (bool): Whether results are put back as LocalMamba's
            code does it, see
            :func:`mmssm.layers.route_merge.released_order`. Defaults to
            False.
        out_proj_scale (float): Factor of the last projection's initial
            weights, where residual branches are many. Defaults to 1.
        init_std (float, optional): Standard deviation of the truncated normal
            that all linear maps but the last start from, also those of the
            step sizes, whose bias then is 0, as in LocalMamba. Defaults to
            PyTorch's and Mamba's own initialisation.
    """

    def __init__(
        self,
        embed_dims: int,
        route_names: str | tuple[str, ...],
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
        inner = int(ssm_ratio * embed_dims)
        self.d_state = d_state
        self.dt_rank = rank = math.ceil(embed_dims / 16)
        self.route_names = parse_routes(route_names)
        self.class_token = class_token
        self.released_inverse = released_inverse
        routes = len(self.route_names)
        self.in_proj = nn.Linear(embed_dims, 2 * inner, bias=False)
        self.act = nn.SiLU()
        # As nn.Conv1d starts; a channel sees conv_size steps of itself.
        self.conv_weight = nn.Parameter(linear_init(routes, inner, conv_size))
        bound = conv_size**-0.5
        # Biases have one axis, so that weight decay spares them.
        self.conv_bias = nn.Parameter(
            torch.empty(routes * inner).uniform_(-bound, bound)
        )
        self.x_proj_weight = nn.Parameter(
            linear_init(routes, rank + 2 * d_state, inner)
        )
        self.dt_projs_weight = nn.Parameter(step_weight(routes, inner, rank))
        self.dt_projs_bias = nn.Parameter(step_bias(routes * inner))
        self.A_logs = nn.Parameter(s4d_log_rates(routes, inner, d_state))
        self.Ds = nn.Parameter(torch.ones(routes * inner))
        self.merge = build_merge(merge, inner, routes)
        self.out_proj = nn.Linear(inner, embed_dims, bias=False)
        if init_std is not None:
            self._draw_normal(init_std)
        with torch.no_grad():
            self.out_proj.weight.mul_(out_proj_scale)

    def _draw_normal(self, std: float) -> None:
        linear = [m for m in self.merge.modules() if isinstance(m, nn.Linear)]
        weights = [m.weight for m in (self.in_proj, *linear)]
        for weight in (*weights, self.x_proj_weight, self.dt_projs_weight):
            nn.init.trunc_normal_(weight, std=std)
        for bias in (*(m.bias for m in linear), self.dt_projs_bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Mix tokens.

        Args:
            x (Tensor): Tokens (B, L, C) of the map, row after row, the class
                token, if any, in their middle.
            height (int): Rows of the map.
            width (int): Columns of the map.

        Returns:
            Tensor: (B, L, C).
        """
        inner = self.out_proj.in_features
        y = self.scan(F.linear(x, self.in_proj.weight[:inner]), height, width)
        gate = self.act(F.linear(x, self.in_proj.weight[inner:]))
        y = self.merge(y * gate.unsqueeze(1))
        return self.out_proj(y.to(self.out_proj.weight.dtype))

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """Convolve and scan tokens (B, L, C) along the routes: (B, K, L, C).

        Zero tokens, where a route leaves the map, are scanned, too: the
        convolution makes something of them.
        """
        tokens = x.shape[1]
        routes = cached_routes(
            self.route_names, height, width, x.device, self.class_token
        ).long()
        num_routes, steps = routes.shape
        read = torch.where(routes < 0, tokens, routes)
        # Step by step, the routes beside each other as channels.
        u = F.pad(x, (0, 0, 0, 1)).index_select(1, read.t().flatten())
        u = u.unflatten(1, (steps, num_routes))
        u = self.act(self._convolve(u.flatten(2))).view_as(u)
        y = self._scan_sequences(u)
        # At which step each route has a token; the last column's are zeros'.
        step = torch.arange(steps, device=x.device).expand(num_routes, -1)
        back = step.new_zeros(num_routes, tokens + 1)
        back = back.scatter(1, read, step)[:, :tokens]
        if self.released_inverse:
            back = back.gather(1, self._released_order(height, width, back))
        return take_tokens(y.transpose(1, 2), back)

    def _convolve(self, x: Tensor) -> Tensor:
        """Causal depthwise convolutions of channels along (B, T, K * C)."""
        steps, taps = x.shape[1], self.conv_weight.shape[-1]
        # In two dimensions: a channels-last image, which needs no copies.
        y = F.conv2d(
            x.transpose(1, 2).unsqueeze(2),
            self.conv_weight.view(-1, 1, 1, taps),
            self.conv_bias,
            padding=(0, taps - 1),
            groups=x.shape[2],
        )
        return y[:, :, 0, :steps].transpose(1, 2)

    def _scan_sequences(self, u: Tensor) -> Tensor:
        """The recurrence of K sequences (B, T, K, C), each read in order.

        For the op the sequences are one map of T * K tokens, of which route k
        passes every K-th.
        """
        steps, num_routes = u.shape[1:3]
        projected = torch.einsum('btkc,krc->btkr', u, self.x_proj_weight)
        projected = projected.flatten(1, 2).unsqueeze(2)
        # A token is met on one route only: all may have the same values.
        dt, B, C = projected.expand(-1, -1, num_routes, -1).split(
            [self.dt_rank, self.d_state, self.d_state], -1
        )
        order = torch.arange(
            steps * num_routes, device=u.device, dtype=torch.int32
        )
        y = routed_selective_scan(
            u.flatten(1, 2),
            dt,
            -torch.exp(self.A_logs).view(num_routes, -1, self.d_state),
            B,
            C,
            self.Ds.view(num_routes, -1),
            routes=order.view(steps, num_routes).t(),
            dt_weight=self.dt_projs_weight,
            dt_bias=self.dt_projs_bias.view(num_routes, -1),
            # A sum over states can pass float16's largest number.
            out_dtype=torch.float32 if u.dtype == torch.float16 else None,
        )
        return y.unflatten(1, (steps, num_routes))

    def _released_order(self, height: int, width: int, like: Tensor) -> Tensor:
        """:func:`released_order`, around the class token if there is one."""
        order = released_order(self.route_names, height, width, like.device)
        if not self.class_token:
            return order
        middle = height * width // 2
        order = order + (order >= middle)
        token = order.new_full((len(order), 1), middle)
        return torch.cat([order[:, :middle], token, order[:, middle:]], 1)
