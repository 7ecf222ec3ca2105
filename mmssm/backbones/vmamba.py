"""VMamba, all published variants.

`VMamba: Visual State Space Model <https://arxiv.org/abs/2401.10166>`_.
"""

from collections.abc import Sequence

import numpy as np
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import (
    SS2D,
    SSD2D,
    ConvDownsample,
    ConvStem,
    PatchMerging,
    PatchStem,
    VSSBlock,
)
from ..scans import CROSS
from .base import Arch, SSMBackbone


def _row(base: dict, **changes) -> dict:
    return {**base, **changes}


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
_VANILLA = _row(
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
_S2 = _row(_S1, ssm_ratio=2.0)
_M2 = _row(_S1, d_state=64, mixer='ssd', act='GELU', ssm_init='uniform')


@MODELS.register_module()
class VMamba(SSMBackbone):
    """Four stages of SS2D blocks, strides 4, 8, 16 and 32.

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
            - **stem** (str): 'conv' (two 3x3 of stride 2) or 'patch' (4x4).
            - **downsample** (str): 'conv' (3x3 of stride 2) or 'merging'.
            - **mixer** (str): 'ss2d', or 'ssd' (Mamba-2 heads).
            - **gate** (bool): Whether SS2D has a gate branch.
            - **conv_bias** (bool): Bias of the depthwise convolution.
            - **act** (str): Activation in the mixer.
            - **routes** (Sequence[str]): The scan's routes, see
              :mod:`mmssm.scans`.
            - **ssm_init** (str): 's4d' or 'uniform'.
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
        init_cfg (dict | list[dict], optional): Defaults to VMamba's own
            initialisation.

    Example:
        >>> model = VMamba('tiny-s1l8', out_indices=(0, 1, 2, 3))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]
    """

    arch_settings = {
        'tiny-s1l8': _S1,
        'small-s1l20': _row(_S1, depths=(2, 2, 20, 2), drop_path_rate=0.3),
        'base-s1l20': _row(
            _S1, embed_dims=128, depths=(2, 2, 20, 2), drop_path_rate=0.5
        ),
        'tiny-s2l5': _row(_S2, depths=(2, 2, 5, 2)),
        'small-s2l15': _row(_S2, depths=(2, 2, 15, 2), drop_path_rate=0.3),
        'base-s2l15': _row(
            _S2, embed_dims=128, depths=(2, 2, 15, 2), drop_path_rate=0.6
        ),
        'vanilla-tiny': _VANILLA,
        'vanilla-small': _row(
            _VANILLA, depths=(2, 2, 27, 2), drop_path_rate=0.3
        ),
        'vanilla-base': _row(
            _VANILLA,
            embed_dims=128,
            depths=(2, 2, 27, 2),
            drop_path_rate=0.6,
        ),
        'tiny-m2': _row(_M2, depths=(2, 2, 4, 2)),
        'small-m2': _row(_M2, depths=(2, 2, 12, 2), drop_path_rate=0.3),
        'base-m2': _row(
            _M2, embed_dims=128, depths=(2, 2, 12, 2), drop_path_rate=0.3
        ),
    }
    arch_aliases = {
        'tiny': 'tiny-s1l8',
        'small': 'small-s1l20',
        'base': 'base-s1l20',
    }

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        self_name, settings = self.parse_arch(arch)
        depths = settings['depths']
        super().__init__(
            out_indices,
            len(depths),
            frozen_stages,
            norm_eval,
            init_cfg
            or [
                dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
                dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
            ],
        )
        self.arch_name, self.arch = self_name, settings
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        embed_dims = settings['embed_dims']
        stem = _choose('stem', settings, conv=ConvStem, patch=PatchStem)
        self.stem = stem(in_channels, embed_dims)

        ramp = np.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            rates, ramp = ramp[:depth], ramp[depth:]
            last = i == len(depths) - 1
            self.stages.append(
                VMambaStage(embed_dims, settings, rates, not last, with_cp)
            )
            if i in self.out_indices:
                self.add_module(f'norm{i}', nn.LayerNorm(embed_dims))
            embed_dims *= 2
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C_i, H_i, W_i) map per ``out_indices``.

        Raises:
            ValueError: If the image is smaller than one patch.
        """
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = block(x)
            if i in self.out_indices:
                out = getattr(self, f'norm{i}')(x)
                outs.append(out.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(outs)


class VMambaStage(nn.Module):
    """One stage's blocks and the downsampling that follows them."""

    def __init__(
        self,
        embed_dims: int,
        settings: dict,
        drop_path_rates: Sequence[float],
        downsample: bool,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VSSBlock(
                embed_dims,
                _build_mixer(embed_dims, settings),
                settings['mlp_ratio'],
                rate,
                with_cp,
            )
            for rate in drop_path_rates
        )
        kind = _choose(
            'downsample', settings, conv=ConvDownsample, merging=PatchMerging
        )
        self.downsample = kind(embed_dims) if downsample else None


def _choose(field: str, settings: dict, **choices):
    if settings[field] not in choices:
        raise ValueError(
            f'VMamba: arch field {field!r} must be one of '
            f'{", ".join(choices)}, got {settings[field]!r}'
        )
    return choices[settings[field]]


def _build_mixer(embed_dims: int, settings: dict) -> nn.Module:
    common = dict(
        d_state=settings['d_state'],
        ssm_ratio=settings['ssm_ratio'],
        conv_bias=settings['conv_bias'],
        act=settings['act'],
        route_names=settings['routes'],
    )
    mixer = _choose('mixer', settings, ss2d=SS2D, ssd=SSD2D)
    if mixer is SSD2D:
        if settings['gate'] or settings['ssm_init'] != 'uniform':
            raise ValueError(
                "VMamba: mixer='ssd' has no gate and starts with "
                "ssm_init='uniform'; set gate=False, ssm_init='uniform'"
            )
        return SSD2D(embed_dims, **common)
    return SS2D(
        embed_dims,
        gate=settings['gate'],
        ssm_init=settings['ssm_init'],
        **common,
    )
