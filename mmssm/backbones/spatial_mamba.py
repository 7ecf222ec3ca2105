"""Spatial-Mamba.

`Spatial-Mamba: Effective Visual State Space Models via Structure-aware State
Fusion <https://arxiv.org/abs/2410.15091>`_.
"""

from mmengine.registry import MODELS
from torch import nn

from ..layers import (
    InvertedDownsample,
    ResidualStem,
    StructureAwareSSM,
    VSSBlock,
)
from .hierarchical import HierarchicalBackbone

_TINY = dict(
    embed_dims=64,
    depths=(2, 4, 8, 4),
    ssm_ratio=2.0,
    mlp_ratio=4.0,
    drop_path_rate=0.2,
)
_SMALL = {**_TINY, 'depths': (2, 4, 21, 5), 'drop_path_rate': 0.3}


@MODELS.register_module()
class SpatialMamba(HierarchicalBackbone):
    """Four stages of structure-aware SSM blocks, strides 4, 8, 16 and 32.

    Args:
        arch (str | dict): 'tiny', 'small' or 'base', or a dict of the fields
            of :attr:`arch_settings`; fields left out are those of ``tiny``:

            - **embed_dims** (int): Channels of the first stage; they double
              from stage to stage.
            - **depths** (Sequence[int]): Blocks of the four stages.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **mlp_ratio** (float): Hidden channels of the FFN / channels.
            - **drop_path_rate** (float): Stochastic depth of the last block;
              it grows linearly from 0.

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
        >>> model = SpatialMamba('tiny', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 64, 56, 56), (1, 128, 28, 28), (1, 256, 14, 14), (1, 512, 7, 7)]
    """

    arch_settings = dict(
        tiny=_TINY,
        small=_SMALL,
        base={**_SMALL, 'embed_dims': 96, 'drop_path_rate': 0.5},
    )

    def _build_stem(self, in_channels: int, embed_dims: int) -> nn.Module:
        return ResidualStem(in_channels, embed_dims)

    def _build_block(
        self, index: int, embed_dims: int, drop_path_rate: float
    ) -> nn.Module:
        return VSSBlock(
            embed_dims,
            StructureAwareSSM(embed_dims, self.arch['ssm_ratio']),
            self.arch['mlp_ratio'],
            drop_path_rate,
            self.with_cp,
            cpe=True,
        )

    def _build_downsample(self, embed_dims: int) -> nn.Module:
        return InvertedDownsample(embed_dims)
