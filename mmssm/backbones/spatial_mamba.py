"""Spatial-Mamba.

`Spatial-Mamba: Effective Visual State Space Models via Structure-aware State
Fusion <https://arxiv.org/abs/2410.15091>`_.
"""

from mmengine.registry import MODELS

from ..layers import InvertedDownsample, ResidualStem, StructureAwareSSM
from .hierarchical import HierarchicalBackbone

_TINY = dict(
    embed_dims=64,
    depths=(2, 4, 8, 4),
    ssm_ratio=2.0,
    mlp_ratio=4.0,
    drop_path_rate=0.2,
)
_SMALL = dict(_TINY, depths=(2, 4, 21, 5), drop_path_rate=0.3)


@MODELS.register_module()
class SpatialMamba(HierarchicalBackbone):
    """Four stages of structure-aware SSM blocks, strides 4, 8, 16 and 32.

    All arguments but ``arch`` are those of
    :class:`mmssm.backbones.HierarchicalBackbone`.

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

    Example:
        >>> model = SpatialMamba('tiny', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 64, 56, 56), (1, 128, 28, 28), (1, 256, 14, 14), (1, 512, 7, 7)]
    """

    arch_settings = dict(
        tiny=_TINY,
        small=_SMALL,
        base=dict(_SMALL, embed_dims=96, drop_path_rate=0.5),
    )
    cpe = True

    def _build_stem(self, in_channels: int, embed_dims: int) -> ResidualStem:
        return ResidualStem(in_channels, embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> StructureAwareSSM:
        return StructureAwareSSM(embed_dims, self.arch['ssm_ratio'])

    def _build_downsample(self, embed_dims: int) -> InvertedDownsample:
        return InvertedDownsample(embed_dims)
