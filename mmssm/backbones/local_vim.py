"""LocalVim.

`LocalMamba: Visual State Space Model with Windowed Selective Scan
<https://arxiv.org/abs/2403.09338>`_.
"""

import re
from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from ..layers import MambaMixer
from .base import Arch
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
_NORMS = dict(rms=nn.RMSNorm, layer=nn.LayerNorm)


@MODELS.register_module()
class LocalVim(PlainBackbone):
    """Twenty layers of Mamba mixers on patches of 16 x 16 pixels.

    Each layer scans along routes of its own, through windows, too, and gates
    the channels of each route's result.

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
            - **class_token** (bool): Whether a class token stands in the
              middle of the sequence.
            - **rope** (bool): Whether every layer turns its tokens by rotary
              positions.
            - **directions**: The routes of every layer, see ``directions``.
            - **drop_path_rate** (float): Stochastic depth of the last layer;
              it grows linearly from 0.

        directions (Sequence, optional): One entry per layer, each the names
            of its routes (see :mod:`mmssm.scans`) as a list or one string.
            'search' makes the supernet of the direction search: all
            candidates in every layer, weighted with learnt probabilities.
            Defaults to the arch's own.
        released_inverse (bool): Whether the results of ``v`` and ``v_flip``
            are put back as the authors' code does it, which mixes up the
            tokens of maps that are not square. For detectors and segmentors
            trained with that code. Defaults to False.
        norm (str): 'rms', or 'layer' as the authors' detectors and segmentors
            have it. From a file with the former, the latter's biases start
            at 0. Defaults to 'rms'.
        img_size (int | tuple[int, int]): Height and width whose positions
            are learnt; those of other images are interpolated. Defaults to
            224.
        in_channels (int): Image channels. Defaults to 3.
        out_type (str, optional): 'featmap' (maps of ``out_indices``),
            'avg_featmap' (the last layer's mean) or 'cls_token'. Defaults to
            what the classifier reads.
        drop_path_rate (float, optional): Defaults to the arch's own.
        out_indices (Sequence[int]): Layers to return, from 0; negative ones
            count from the end. Defaults to (-1, ).
        frozen_stages (int): Stem, positions and the layers up to this one do
            not learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): Defaults to the original's
            initialisation.

    Example:
        >>> model = LocalVim('tiny', out_type='featmap', out_indices=(9, 19))
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 192, 14, 14), (1, 192, 14, 14)]
    """

    arch_settings = {
        'tiny': _TINY,
        'tiny-midcls': {**_TINY, 'class_token': True, 'rope': False},
        # With the directions of the paper and of the authors' detectors and
        # segmentors; their classifier's code has others, too.
        'small': {**_TINY, 'embed_dims': 384},
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
        out_indices: Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        if norm not in _NORMS:
            raise ValueError(
                f"LocalVim: norm must be 'rms' or 'layer', got {norm!r}"
            )
        name, settings = self.parse_arch(arch)
        if directions is not None:
            settings['directions'] = directions
        self._norm_kind, self._released_inverse = norm, released_inverse
        super().__init__(
            settings,
            img_size,
            in_channels,
            out_type,
            drop_path_rate,
            out_indices,
            frozen_stages,
            norm_eval,
            with_cp,
            init_cfg,
        )
        self.arch_name = name

    def _build_norm(self, embed_dims: int) -> nn.Module:
        return _NORMS[self._norm_kind](embed_dims, eps=1e-5)

    def _build_mixer(self, index: int, embed_dims: int) -> MambaMixer:
        arch = self.arch
        routes = parse_directions(arch['directions'], arch['depth'])
        return MambaMixer(
            embed_dims,
            routes[index],
            'searched' if arch['directions'] == SEARCH else 'gated',
            arch['d_state'],
            arch['ssm_ratio'],
            class_token=arch['class_token'],
            released_inverse=self._released_inverse,
            out_proj_scale=arch['depth'] ** -0.5,
            init_std=0.02,
        )

    def _may_start_fresh(self, key: str) -> bool:
        bias = re.fullmatch(r'layers\.\d+\.norm\.bias', key)
        layer_norm = self._norm_kind == 'layer'
        return (layer_norm and bias is not None) or super()._may_start_fresh(
            key
        )
