"""LocalVim.

`LocalMamba: Visual State Space Model with Windowed Selective Scan
<https://arxiv.org/abs/2403.09338>`_.
"""

import re
from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from mmssm.utils import UserError

from ..layers import MambaMixer
from ..layers.norms import RMSNorm
from .base import Arch, InitCfg
from .directions import (
    LOCAL_VIM_TINY,
    SEARCH,
    Directions,
    parse_directions,
)
from .plain import PlainBackbone

_TINY = dict(
    embed_dims=192,
    depth=20,
    patch_size=16,
    patch_stride=16,
    d_state=16,
    ssm_ratio=2.0,
    class_token=False,
    rope=True,
    directions=LOCAL_VIM_TINY,
    drop_path_rate=0.1,
)
_NORMS = dict(rms=RMSNorm, layer=nn.LayerNorm)


@MODELS.register_module()
class LocalVim(PlainBackbone):
    """Twenty layers of Mamba mixers on patches of 16 x 16 pixels.

    Each layer has routes of its own, some of them through windows, and gates
    the channels of each route's result. All other arguments are those of
    :class:`mmssm.backbones.PlainBackbone`.

    Args:
        arch (str | dict): 'tiny', 'tiny-midcls' (class token in the middle,
            no rotary positions) or 'small', or a dict of the fields of
            :attr:`arch_settings`; fields left out are those of ``tiny``:

            - **embed_dims** (int): Channels.
            - **depth** (int): Layers.
            - **patch_size**, **patch_stride** (int): Pixels of a patch's
              side, and from patch to patch.
            - **d_state** (int): States per channel.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **class_token** (bool): Whether there is a class token in the
              middle of the sequence.
            - **rope** (bool): Whether every layer rotates its tokens by
              their positions.
            - **directions**: The routes of every layer, see ``directions``.
            - **drop_path_rate** (float): Stochastic depth of the last layer;
              it grows linearly from 0.

        directions (Sequence, optional): The routes of every layer: one entry
            per layer, a list of route names (see :mod:`mmssm.scans`) or a
            string of them with spaces in between. 'search' builds the
            supernet of the direction search, where every layer has all
            candidate routes, weighted with learned probabilities. Defaults
            to the arch's own.
        released_inverse (bool): Whether the results of ``v`` and ``v_flip``
            are put back as in the authors' released code, which mixes up the
            tokens of maps that are not square. Set it for detectors and
            segmentors that were trained with that code. Defaults to False.
        norm (str): 'rms', or 'layer' as in the authors' detectors and
            segmentors. A model with layer norms also loads files with RMS
            norms; its biases then start at 0. Defaults to 'rms'.

    Example:
        >>> model = LocalVim('tiny', out_type='featmap', out_indices=(9, 19))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 192, 14, 14), (1, 192, 14, 14)]
    """

    arch_settings = {
        'tiny': _TINY,
        'tiny-midcls': dict(_TINY, class_token=True, rope=False),
        # The directions are those of the paper and of the authors' detectors
        # and segmentors. The authors' classifier has others as well.
        'small': dict(_TINY, embed_dims=384),
    }

    def __init__(
        self,
        arch: Arch = 'tiny',
        directions: Directions | None = None,
        released_inverse: bool = False,
        norm: str = 'rms',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        out_type: str | None = None,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg | None = None,
    ) -> None:
        if norm not in _NORMS:
            raise UserError(
                f"LocalVim: norm must be 'rms' or 'layer', got {norm!r}"
            )
        name, settings = self.parse_arch(arch)
        if directions is not None:
            settings['directions'] = directions
        self._routes = parse_directions(
            settings['directions'], settings['depth']
        )
        self._norm = norm
        self._released_inverse = released_inverse
        super().__init__(
            arch=settings,
            img_size=img_size,
            in_channels=in_channels,
            out_type=out_type,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.arch_name = name

    def _build_norm(self, embed_dims: int) -> nn.Module:
        return _NORMS[self._norm](embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> MambaMixer:
        arch = self.arch
        return MambaMixer(
            embed_dims,
            routes=self._routes[index],
            merge='searched' if arch['directions'] == SEARCH else 'gated',
            d_state=arch['d_state'],
            ssm_ratio=arch['ssm_ratio'],
            class_token=arch['class_token'],
            released_inverse=self._released_inverse,
            out_proj_scale=arch['depth'] ** -0.5,
            init_std=0.02,
        )

    def _is_optional(self, key: str) -> bool:
        if self._norm == 'layer':
            # RMS norms have no biases, so files with them lack these.
            if re.fullmatch(r'layers\.\d+\.norm\.bias', key):
                return True
        return super()._is_optional(key)
