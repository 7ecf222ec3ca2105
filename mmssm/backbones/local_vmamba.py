"""LocalVMamba.

`LocalMamba: Visual State Space Model with Windowed Selective Scan
<https://arxiv.org/abs/2403.09338>`_.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from ..layers import SS2D, PatchMerging, PatchStem, VSSBlock
from .base import Arch
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

    Each block scans along routes of its own, through windows, too, and gates
    the channels of each route's result.

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

        directions (Sequence, optional): One entry per block, each the names
            of its routes (see :mod:`mmssm.scans`) as a list or one string.
            'search' makes the supernet of the direction search: all
            candidates in every block, weighted with learnt probabilities.
            Defaults to the arch's own.
        released_inverse (bool): Whether the results of ``v`` and ``v_flip``
            are put back as the authors' code does it, which mixes up the
            tokens of maps that are not square. For detectors and segmentors
            trained with that code. Defaults to False.
        in_channels (int): Image channels. Defaults to 3.
        drop_path_rate (float, optional): Defaults to the arch's own.
        out_indices (Sequence[int]): Stages to return. Defaults to (3, ).
        frozen_stages (int): The stem and the stages up to this one do not
            learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): Defaults to the original's
            initialisation.

    Example:
        >>> model = LocalVMamba('tiny', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]
    """

    arch_settings = dict(
        tiny=_TINY,
        small={
            **_TINY,
            'depths': (2, 2, 27, 2),
            'directions': LOCAL_VMAMBA_SMALL,
        },
    )

    def __init__(
        self,
        arch: Arch = 'tiny',
        directions: Directions | None = None,
        released_inverse: bool = False,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        name, settings = self.parse_arch(arch)
        if directions is not None:
            settings['directions'] = directions
        self._released_inverse = released_inverse
        super().__init__(
            settings,
            in_channels,
            drop_path_rate,
            out_indices,
            frozen_stages,
            norm_eval,
            with_cp,
            init_cfg,
        )
        self.arch_name = name

    def _build_stem(self, in_channels: int, embed_dims: int) -> nn.Module:
        return PatchStem(in_channels, embed_dims)

    def _build_block(
        self, index: int, embed_dims: int, drop_path_rate: float
    ) -> nn.Module:
        directions = self.arch['directions']
        routes = parse_directions(directions, sum(self.arch['depths']))
        mixer = SS2D(
            embed_dims,
            self.arch['d_state'],
            self.arch['ssm_ratio'],
            gate=True,
            conv_bias=True,
            route_names=routes[index],
            merge='searched' if directions == SEARCH else 'gated',
            released_inverse=self._released_inverse,
        )
        return VSSBlock(embed_dims, mixer, 0.0, drop_path_rate, self.with_cp)

    def _build_downsample(self, embed_dims: int) -> nn.Module:
        return PatchMerging(embed_dims)
