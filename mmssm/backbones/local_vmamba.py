"""LocalVMamba.

`LocalMamba: Visual State Space Model with Windowed Selective Scan
<https://arxiv.org/abs/2403.09338>`_.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS

from ..layers import SS2D, PatchMerging, PatchStem
from .base import Arch, InitCfg
from .directions import (
    LOCAL_VMAMBA_SMALL,
    LOCAL_VMAMBA_TINY,
    SEARCH,
    Directions,
    parse_directions,
)
from .hierarchical import HierarchicalBackbone

_TINY = dict(
    embed_dims=96,
    depths=(2, 2, 9, 2),
    d_state=16,
    ssm_ratio=2.0,
    directions=LOCAL_VMAMBA_TINY,
    drop_path_rate=0.2,
)


@MODELS.register_module()
class LocalVMamba(HierarchicalBackbone):
    """Four stages of SS2D blocks, strides 4, 8, 16 and 32.

    Each block has routes of its own, some of them through windows, and gates
    the channels of each route's result. All other arguments are those of
    :class:`mmssm.backbones.HierarchicalBackbone`.

    Args:
        arch (str | dict): 'tiny' or 'small', or a dict of the fields of
            :attr:`arch_settings`; fields left out are those of ``tiny``:

            - **embed_dims** (int): Channels of the first stage; they double
              from stage to stage.
            - **depths** (Sequence[int]): Blocks of the four stages.
            - **d_state** (int): States per channel.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **directions**: The routes of every block, see ``directions``.
            - **drop_path_rate** (float): Stochastic depth of the last block;
              it grows linearly from 0.

        directions (Sequence, optional): The routes of every block: one entry
            per block, a list of route names (see :mod:`mmssm.scans`) or a
            string of them with spaces in between. 'search' builds the
            supernet of the direction search, where every block has all
            candidate routes, weighted with learned probabilities. Defaults
            to the arch's own.
        released_inverse (bool): Whether the results of ``v`` and ``v_flip``
            are put back as in the authors' released code, which mixes up the
            tokens of maps that are not square. Set it for detectors and
            segmentors that were trained with that code. Defaults to False.

    Example:
        >>> model = LocalVMamba('tiny', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]
    """

    arch_settings = dict(
        tiny=_TINY,
        small=dict(_TINY, depths=(2, 2, 27, 2), directions=LOCAL_VMAMBA_SMALL),
    )

    def __init__(
        self,
        arch: Arch = 'tiny',
        directions: Directions | None = None,
        released_inverse: bool = False,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg | None = None,
    ) -> None:
        name, settings = self.parse_arch(arch)
        if directions is not None:
            settings['directions'] = directions
        self._routes = parse_directions(
            settings['directions'], sum(settings['depths'])
        )
        self._released_inverse = released_inverse
        super().__init__(
            arch=settings,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.arch_name = name

    def _build_stem(self, in_channels: int, embed_dims: int) -> PatchStem:
        return PatchStem(in_channels, embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> SS2D:
        arch = self.arch
        return SS2D(
            embed_dims,
            d_state=arch['d_state'],
            ssm_ratio=arch['ssm_ratio'],
            gate=True,
            conv_bias=True,
            routes=self._routes[index],
            merge='searched' if arch['directions'] == SEARCH else 'gated',
            released_inverse=self._released_inverse,
        )

    def _build_downsample(self, embed_dims: int) -> PatchMerging:
        return PatchMerging(embed_dims)
