"""VMamba, all published variants.

`VMamba: Visual State Space Model <https://arxiv.org/abs/2401.10166>`_.
"""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from mmssm.utils import UserError

from ..layers import (
    SS2D,
    SSD2D,
    ConvDownsample,
    ConvStem,
    PatchMerging,
    PatchStem,
)
from ..scans import CROSS
from .hierarchical import HierarchicalBackbone

_S1 = dict(
    embed_dims=96,
    depths=(2, 2, 8, 2),
    d_state=1,
    ssm_ratio=1.0,
    mlp_ratio=4.0,
    stem='conv',
    downsample='conv',
    mixer='ss2d',
    gate=False,
    conv_bias=False,
    act='SiLU',
    routes=CROSS,
    ssm_init='s4d',
    drop_path_rate=0.2,
)
_VANILLA = dict(
    _S1,
    depths=(2, 2, 9, 2),
    d_state=16,
    ssm_ratio=2.0,
    mlp_ratio=0.0,
    stem='patch',
    downsample='merging',
    gate=True,
    conv_bias=True,
)
_S2 = dict(_S1, ssm_ratio=2.0)
_M2 = dict(_S1, d_state=64, mixer='ssd', act='GELU', ssm_init='uniform')


@MODELS.register_module()
class VMamba(HierarchicalBackbone):
    """Four stages of SS2D blocks, strides 4, 8, 16 and 32.

    All arguments but ``arch`` are those of
    :class:`mmssm.backbones.HierarchicalBackbone`.

    Args:
        arch (str | dict): A row of :attr:`arch_settings`, or a dict of its
            fields; fields left out are those of ``tiny-s1l8``:

            - **embed_dims** (int): Channels of the first stage; they double
              from stage to stage.
            - **depths** (Sequence[int]): Blocks of the four stages.
            - **d_state** (int): States per channel.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **mlp_ratio** (float): Hidden channels of the FFN / channels; 0
              for no FFN.
            - **stem** (str): 'conv' (two 3 x 3 convolutions of stride 2) or
              'patch' (patches of 4 x 4 pixels).
            - **downsample** (str): 'conv' (a 3 x 3 convolution of stride 2)
              or 'merging' (patch merging).
            - **mixer** (str): 'ss2d', or 'ssd' (Mamba-2 heads).
            - **gate** (bool): Whether SS2D has a gate branch.
            - **conv_bias** (bool): Whether the depthwise convolution has a
              bias.
            - **act** (str): Activation in the mixer.
            - **routes** (Sequence[str]): The scan's routes, see
              :mod:`mmssm.scans`.
            - **ssm_init** (str): 's4d' or 'uniform', see
              :class:`mmssm.layers.SS2D`.
            - **drop_path_rate** (float): Stochastic depth of the last block;
              it grows linearly from 0.

    Example:
        >>> model = VMamba('tiny-s1l8', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]
    """

    arch_settings = {
        'tiny-s1l8': _S1,
        'small-s1l20': dict(_S1, depths=(2, 2, 20, 2), drop_path_rate=0.3),
        'base-s1l20': dict(
            _S1, embed_dims=128, depths=(2, 2, 20, 2), drop_path_rate=0.5
        ),
        'tiny-s2l5': dict(_S2, depths=(2, 2, 5, 2)),
        'tiny-s2l4': dict(_S2, depths=(2, 2, 4, 2)),  # ChangeMamba's
        'small-s2l15': dict(_S2, depths=(2, 2, 15, 2), drop_path_rate=0.3),
        'base-s2l15': dict(
            _S2, embed_dims=128, depths=(2, 2, 15, 2), drop_path_rate=0.6
        ),
        'vanilla-tiny': _VANILLA,
        'vanilla-small': dict(
            _VANILLA, depths=(2, 2, 27, 2), drop_path_rate=0.3
        ),
        'vanilla-base': dict(
            _VANILLA,
            embed_dims=128,
            depths=(2, 2, 27, 2),
            drop_path_rate=0.6,
        ),
        'tiny-m2': dict(_M2, depths=(2, 2, 4, 2)),
        'small-m2': dict(_M2, depths=(2, 2, 12, 2), drop_path_rate=0.3),
        'base-m2': dict(
            _M2, embed_dims=128, depths=(2, 2, 12, 2), drop_path_rate=0.3
        ),
    }
    arch_aliases = {
        'tiny': 'tiny-s1l8',
        'small': 'small-s1l20',
        'base': 'base-s1l20',
    }

    def _build_stem(self, in_channels: int, embed_dims: int) -> nn.Module:
        kind = self._choose('stem', conv=ConvStem, patch=PatchStem)
        return kind(in_channels, embed_dims)

    def _build_downsample(self, embed_dims: int) -> nn.Module:
        kind = self._choose(
            'downsample', conv=ConvDownsample, merging=PatchMerging
        )
        return kind(embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> SS2D | SSD2D:
        arch = self.arch
        common = dict(
            d_state=arch['d_state'],
            ssm_ratio=arch['ssm_ratio'],
            conv_bias=arch['conv_bias'],
            act=arch['act'],
            routes=arch['routes'],
        )
        if self._choose('mixer', ss2d=SS2D, ssd=SSD2D) is SS2D:
            return SS2D(
                embed_dims,
                gate=arch['gate'],
                ssm_init=arch['ssm_init'],
                **common,
            )
        if arch['gate'] or arch['ssm_init'] != 'uniform':
            raise UserError(
                "VMamba: mixer='ssd' has no gate and starts with "
                "ssm_init='uniform'; set gate=False, ssm_init='uniform'"
            )
        return SSD2D(embed_dims, **common)

    def _choose(self, field: str, **choices: type) -> Any:
        """The class that a field of the arch names."""
        if self.arch[field] not in choices:
            raise UserError(
                f'VMamba: arch field {field!r} must be one of '
                f'{", ".join(choices)}, got {self.arch[field]!r}'
            )
        return choices[self.arch[field]]
