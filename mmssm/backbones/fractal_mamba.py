"""FractalMamba, reconstructed.

`Scalable Visual State Space Model with Fractal Scanning
<https://arxiv.org/abs/2405.14480>`_. Its authors released no code; see
:class:`FractalMamba` for what is published and what is our choice.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from mmssm.utils import UserError

from ..layers import SS2D, ConvDownsample, ConvStem, TreeSSM
from ..scans import CROSS, HILBERT, HILBERT_SHIFT
from .base import Arch, InitCfg
from .hierarchical import HierarchicalBackbone

# The curve of a tree, and the routes of even and odd blocks. Rows and columns
# have no joints, so they are not shifted.
_CURVES = dict(hilbert='hilbert', raster='h')
_ROUTES = dict(hilbert=(HILBERT, HILBERT_SHIFT), raster=(CROSS, CROSS))
_TINY = dict(
    embed_dims=80,
    depths=(2, 2, 9, 2),
    ssm_ratio=2.0,
    mlp_ratio=4.0,
    drop_path_rate=0.1,
)


@MODELS.register_module()
class FractalMamba(HierarchicalBackbone):
    """Four stages of scans along a Hilbert curve, strides 4, 8, 16 and 32.

    This is a reconstruction: the authors published two papers and tables, but
    no code. The parameters and FLOPs of their tables are those of `GrootV-T
    <https://arxiv.org/abs/2406.02395>`_, and their page keeps that project's
    setup, so the stem, blocks and widths here are GrootV-T's. Its minimum
    spanning tree is replaced by a fixed tree along the Hilbert curve: every
    token's parent is the token before it on the curve, except for a share of
    tokens whose parent is an earlier neighbor on the map. How the authors
    choose these tokens is not published. ``scan='routes'`` is the first
    paper's scan along several Hilbert curves; which curves, and how far they
    are shifted, is not published either.

    Arguments that are not listed are those of
    :class:`mmssm.backbones.HierarchicalBackbone`.

    Args:
        arch (str | dict): 'tiny', or a dict of the fields of
            :attr:`arch_settings`; fields left out are those of ``tiny``:

            - **embed_dims** (int): Channels of the first stage; they double
              from stage to stage.
            - **depths** (Sequence[int]): Blocks of the four stages.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **mlp_ratio** (float): Hidden channels of the FFN / channels.
            - **drop_path_rate** (float): Stochastic depth of the last block;
              it grows linearly from 0.

        scan (str): 'tree', or 'routes' for four scans as in VMamba: along the
            curve of the map and that of the transposed map, forward and
            backward. With 'routes', every second block takes shifted Hilbert
            curves, which separate other neighbors. Defaults to 'tree'.
        order (str): The curve: 'hilbert', or 'raster' for rows ('routes':
            rows and columns). Defaults to 'hilbert'.
        pathways (float, optional): Share of tokens whose parent is an earlier
            neighbor, only for ``scan='tree'``; see
            :func:`mmssm.scans.tree.tree_parents`. Defaults to 0.1.

    Example:
        >>> model = FractalMamba('tiny', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 80, 56, 56), (1, 160, 28, 28), (1, 320, 14, 14), (1, 640, 7, 7)]
    """

    arch_settings = dict(tiny=_TINY)
    norms_feed_stages = True

    def __init__(
        self,
        arch: Arch = 'tiny',
        scan: str = 'tree',
        order: str = 'hilbert',
        pathways: float | None = None,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg | None = None,
    ) -> None:
        if scan not in ('tree', 'routes'):
            raise UserError(
                f"FractalMamba: scan must be 'tree' or 'routes', got {scan!r}"
            )
        if order not in _ROUTES:
            raise UserError(
                "FractalMamba: order must be 'hilbert' or 'raster', got "
                f'{order!r}'
            )
        if scan == 'routes' and pathways is not None:
            raise UserError(
                "FractalMamba: pathways are a tree's, but scan is 'routes'; "
                'leave one of them out'
            )
        if pathways is None:
            pathways = 0.1
        if not isinstance(pathways, (int, float)) or not 0 <= pathways <= 1:
            raise UserError(
                'FractalMamba: pathways must be a share of tokens, 0 to 1, '
                f'got {pathways!r}'
            )
        self._scan, self._order, self._pathways = scan, order, pathways
        super().__init__(
            arch=arch,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        # As in GrootV: norms in mixers keep the default epsilon of 1e-5.
        for name, module in self.named_modules():
            if isinstance(module, nn.LayerNorm) and '.mixer.' not in name:
                module.eps = 1e-6

    def _build_stem(self, in_channels: int, embed_dims: int) -> ConvStem:
        return ConvStem(in_channels, embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> TreeSSM | SS2D:
        ssm_ratio = self.arch['ssm_ratio']
        if self._scan == 'tree':
            return TreeSSM(
                embed_dims,
                curve=_CURVES[self._order],
                pathways=self._pathways,
                ssm_ratio=ssm_ratio,
            )
        return SS2D(
            embed_dims,
            ssm_ratio=ssm_ratio,
            gate=True,
            routes=_ROUTES[self._order][index % 2],
        )

    def _build_downsample(self, embed_dims: int) -> ConvDownsample:
        return ConvDownsample(embed_dims, bias=False)
