"""SS2D, the mixer of `VMamba <https://arxiv.org/abs/2401.10166>`_."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import routed_selective_scan
from ..scans import CROSS, cached_routes, parse_routes
from .map_mixer import MapMixer
from .route_merge import build_merge, gather_by_route, released_inverse_index


class SS2D(MapMixer):
    """Selective scan of a map along several routes.

    Parameters that belong to a route are packed along their first axis, in
    the order of ``routes``.

    Args:
        embed_dims (int): Channels in and out.
        d_state (int): States per channel. Defaults to 1.
        ssm_ratio (float): Inner channels / ``embed_dims``. Defaults to 1.
        gate (bool): Whether a second branch gates the result. Defaults to
            False.
        conv_bias (bool): Whether the depthwise convolution has a bias.
            Defaults to False.
        act (str): Activation of convolution and gate. Defaults to 'SiLU'.
        ssm_init (str): 's4d' or 'uniform', see :meth:`build_recurrence`.
            Defaults to 's4d'.
        routes (Sequence[str]): See :mod:`mmssm.scans`. Defaults to VMamba's
            cross-scan.
        merge (str, optional): How routes become one map: 'mean', 'gated' or
            'searched', see :func:`mmssm.layers.route_merge.build_merge`.
            Defaults to None, their plain sum.
        released_inverse (bool): With ``merge``, whether results are put back
            as LocalMamba's released code does it, see
            :func:`mmssm.layers.route_merge.released_inverse_index`. Defaults
            to False.

    Raises:
        UserError: If a route, ``merge`` or ``ssm_init`` is unknown.
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
        routes: str | Sequence[str] = CROSS,
        merge: str | None = None,
        released_inverse: bool = False,
    ) -> None:
        inner = int(ssm_ratio * embed_dims)
        super().__init__(
            embed_dims, inner, gate=gate, conv_bias=conv_bias, act=act
        )
        self.d_state = d_state
        self.routes = parse_routes(routes)
        num_routes = len(self.routes)
        self.build_recurrence(num_routes, d_state=d_state, ssm_init=ssm_init)
        self.merge = merge and build_merge(merge, inner, num_routes)
        self.released_inverse = released_inverse
        self.build_output()

    def scan(self, x: Tensor) -> Tensor:
        """Scan along all routes and merge: (B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        x = x.flatten(1, 2)
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
            routes=cached_routes(self.routes, height, width, x.device),
            dt_weight=self.dt_projs_weight,
            dt_bias=self.dt_projs_bias,
            output='routes' if self.merge else 'sum',
        )
        if self.merge:
            if self.released_inverse:
                index = released_inverse_index(
                    self.routes, height, width, x.device
                )
                y = gather_by_route(y, index)
            y = self.merge(y)
        return y.unflatten(1, (height, width))
