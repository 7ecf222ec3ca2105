"""FractalMamba, reconstructed.

`Scalable Visual State Space Model with Fractal Scanning
<https://arxiv.org/abs/2405.14480>`_. Its authors released no code; see
:class:`FractalMamba` for what is theirs and what is ours.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from ..layers import SS2D, ConvDownsample, ConvStem, TreeSSM, VSSBlock
from ..scans import CROSS, HILBERT, HILBERT_SHIFT
from .base import Arch
from .hierarchical import HierarchicalBackbone

# What a tree follows, and the routes of even and odd blocks. Rows and columns
# have no joints that a shift would move.
_TREE_ORDERS = dict(hilbert='hilbert', raster='h')
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

    A reconstruction: the authors published two papers and tables, but no
    code. Parameters and FLOPs of their tables are those of `GrootV-T
    <https://arxiv.org/abs/2406.02395>`_, and their page keeps that project's
    set-up, so its stem, blocks and widths are used. Its minimum spanning tree
    is replaced by a fixed tree over the Hilbert curve: every token's parent is
    the one before it, but for a share of tokens whose parent is an earlier
    neighbour, a pathway from an early state to a late position. How the
    authors choose those is not published. The first paper's several Hilbert
    routes and their shifts are ``scan='routes'``; which, and where they are
    shifted, is not published either.

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

        scan (str): 'tree', or 'routes' for four scans as in VMamba along the
            curve, the transposed map's curve and their reverses; every second
            block has the Hilbert curves shifted, so that other neighbours are
            parted. Defaults to 'tree'.
        order (str): The curve, 'hilbert' or 'raster'. Defaults to 'hilbert'.
        pathways (float, optional): Share of tokens whose parent is an earlier
            neighbour, for ``scan='tree'`` alone; see
            :func:`mmssm.scans.tree.tree_parents`. Defaults to 0.1.
        in_channels (int): Image channels. Defaults to 3.
        drop_path_rate (float, optional): Defaults to the arch's own.
        out_indices (Sequence[int]): Stages to return. Defaults to (3, ).
        frozen_stages (int): The stem and the stages up to this one do not
            learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): Defaults to GrootV's
            initialisation.

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
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        if scan not in ('tree', 'routes'):
            raise ValueError(
                f"FractalMamba: scan must be 'tree' or 'routes', got {scan!r}"
            )
        if order not in _ROUTES:
            raise ValueError(
                "FractalMamba: order must be 'hilbert' or 'raster', got "
                f'{order!r}'
            )
        if scan == 'routes' and pathways is not None:
            raise ValueError(
                "FractalMamba: pathways are a tree's, but scan is 'routes'; "
                'leave one of them out'
            )
        if pathways is None:
            pathways = 0.1
        if not isinstance(pathways, (int, float)) or not 0 <= pathways <= 1:
            raise ValueError(
                'FractalMamba: pathways must be a share of tokens, 0 to 1, '
                f'got {pathways!r}'
            )
        self._scan = scan, order, pathways
        super().__init__(
            arch,
            in_channels,
            drop_path_rate,
            out_indices,
            frozen_stages,
            norm_eval,
            with_cp,
            init_cfg,
        )
        # The original's epsilons: larger in mixers than elsewhere.
        for name, module in self.named_modules():
            if isinstance(module, nn.LayerNorm) and '.mixer.' not in name:
                module.eps = 1e-6

    def _build_stem(self, in_channels: int, embed_dims: int) -> nn.Module:
        return ConvStem(in_channels, embed_dims)

    def _build_block(
        self, index: int, embed_dims: int, drop_path_rate: float
    ) -> nn.Module:
        kind, order, pathways = self._scan
        ratio = self.arch['ssm_ratio']
        if kind == 'tree':
            mixer = TreeSSM(embed_dims, _TREE_ORDERS[order], pathways, ratio)
        else:
            mixer = SS2D(
                embed_dims,
                ssm_ratio=ratio,
                gate=True,
                route_names=_ROUTES[order][index % 2],
            )
        return VSSBlock(
            embed_dims,
            mixer,
            self.arch['mlp_ratio'],
            drop_path_rate,
            self.with_cp,
        )

    def _build_downsample(self, embed_dims: int) -> nn.Module:
        return ConvDownsample(embed_dims, bias=False)
