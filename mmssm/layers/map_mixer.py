"""What the mixers of maps share: parameters, and everything around a scan."""

import math

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmssm.utils import UserError

from .norms import ScanNorm
from .slices import by_slices
from .ssm_init import linear_init, s4d_log_rates, step_bias, step_weight


class MapMixer(BaseModule):
    """Base of the mixers that scan a map.

    Linear projection, depthwise 3 x 3 convolution and activation; the scan;
    norm, optionally a gate, and linear projection. This is the frame of
    VMamba's block, which Spatial-Mamba and GrootV share.

    A subclass calls ``super().__init__(...)``, creates its own parameters, for
    example with :meth:`build_recurrence`, and calls :meth:`build_output`. It
    implements :meth:`scan`:

    .. code-block:: python

        class RowMeans(MapMixer):
            def __init__(self, embed_dims: int) -> None:
                super().__init__(embed_dims, embed_dims, gate=True)
                self.scale = nn.Parameter(torch.ones(self.inner_dims))
                self.build_output()

            def scan(self, x: Tensor) -> Tensor:
                return self.scale * x.mean(2, keepdim=True).expand_as(x)

    Args:
        embed_dims (int): Channels in and out.
        inner_dims (int): Channels of the scan.
        gate (bool): Whether a second branch gates the result. Defaults to
            False.
        conv_bias (bool): Whether the convolution has a bias. Defaults to
            False.
        act (str): Activation of convolution and gate. Defaults to 'SiLU'.
    """

    def __init__(
        self,
        embed_dims: int,
        inner_dims: int,
        gate: bool = False,
        conv_bias: bool = False,
        act: str = 'SiLU',
    ) -> None:
        super().__init__()
        self.embed_dims, self.inner_dims = embed_dims, inner_dims
        self.in_proj = nn.Linear(embed_dims, inner_dims, bias=False)
        # The originals have both in one layer. Apart, each is called as a
        # module when its result is needed.
        self.gate_proj = None
        if gate:
            self.gate_proj = nn.Linear(embed_dims, inner_dims, bias=False)
        self.conv2d = nn.Conv2d(
            inner_dims,
            inner_dims,
            3,
            padding=1,
            groups=inner_dims,
            bias=conv_bias,
        )
        self.act = build_activation_layer(dict(type=act))

    def build_recurrence(
        self, *num_routes: int, d_state: int, ssm_init: str = 's4d'
    ) -> None:
        """Create the parameters of selective scans and ``dt_rank``.

        Their shapes and names are those of the originals, whose checkpoints
        and weight decay (by number of axes) depend on them.

        Args:
            *num_routes (int): Routes, each of which has its own parameters.
                Without it, there is one scan, and its projections have no
                axis of routes.
            d_state (int): States per channel.
            ssm_init (str): 's4d' (S4D's rates, log-uniform steps) or
                'uniform' (VMamba's "v2": unit rates, 0.1 * U(0, 1) steps).
                Defaults to 's4d'.

        Raises:
            UserError: If ``ssm_init`` is unknown.
        """
        self.dt_rank = rank = math.ceil(self.embed_dims / 16)
        inner, total = self.inner_dims, math.prod(num_routes)
        self.x_proj_weight = nn.Parameter(
            linear_init(*num_routes, rank + 2 * d_state, inner)
        )
        if ssm_init == 's4d':
            weight = step_weight(*num_routes, inner, rank)
            bias = step_bias(*num_routes, inner)
            log_rates = s4d_log_rates(total, inner, d_state)
        elif ssm_init == 'uniform':
            weight = 0.1 * torch.rand(*num_routes, inner, rank)
            bias = 0.1 * torch.rand(*num_routes, inner)
            log_rates = torch.zeros(total * inner, d_state)
        else:
            raise UserError(
                f"ssm_init must be 's4d' or 'uniform', got {ssm_init!r}"
            )
        self.dt_projs_weight = nn.Parameter(weight)
        self.dt_projs_bias = nn.Parameter(bias)
        self.A_logs = nn.Parameter(log_rates)
        self.Ds = nn.Parameter(torch.ones(total * inner))

    def build_output(self) -> None:
        """Create the last norm and projection.

        A subclass calls it after it has created its own parameters. So the
        order in which initial weights are drawn stays that of the originals,
        and a seed gives the same model.
        """
        self.out_norm = ScanNorm(self.inner_dims)
        self.out_proj = nn.Linear(self.inner_dims, self.embed_dims, bias=False)

    def scan(self, x: Tensor) -> Tensor:
        """Mix tokens: (B, H, W, inner) -> (B, H, W, inner)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        y = self.scan(self.project_in(x))
        return by_slices(
            self.project_out, y, x, width=self.inner_dims, owner=self
        )

    def project_in(self, x: Tensor) -> Tensor:
        """What is scanned: (B, H, W, C) -> (B, H, W, inner)."""
        # The same name at each step, so that no map outlives its use.
        x = self.in_proj(x)
        x = self.conv2d(x.permute(0, 3, 1, 2))
        return self.act(x).permute(0, 2, 3, 1)

    def project_out(self, y: Tensor, x: Tensor) -> Tensor:
        """The result of a scan y and the mixer's input x -> its output.

        Acts on every token alone: (..., inner) and (..., C) -> (..., C). The
        gate is projected here, after the scan, so that its map does not take
        memory during the scan.
        """
        # A scan may give float32, where sums pass float16's largest number.
        y = self.out_norm(y).to(x.dtype)
        if self.gate_proj is not None:
            y = y * self.act(self.gate_proj(x))
        return self.out_proj(y)
