"""Vim's checkpoints (https://github.com/hustvl/Vim)."""

from collections.abc import Collection, Mapping

from torch import Tensor

from ..backbones import Vim
from . import plain
from .key_map import Converted, RenamedWeights, arch_name

NAME = 'vim'

_MIXER = 'layers.#.mixer'
_PACKING = plain.packing(2)
# An image of 224 x 224 pixels has this many patches in a row where they are 8
# pixels apart.
_FINE_SIDE = 27

# The names of a mixer's backward route have a '_b'.
_RULES = (
    (f'{_MIXER}.A_log', f'{_MIXER}.A_logs.0'),
    (f'{_MIXER}.A_b_log', f'{_MIXER}.A_logs.1'),
    *(
        (f'{_MIXER}.{old}', f'{_MIXER}.{new}.{route}')
        for route, suffix in enumerate(('', '_b'))
        for old, new in (
            (f'D{suffix}', 'Ds'),
            (f'conv1d{suffix}.weight', 'conv_weight'),
            (f'conv1d{suffix}.bias', 'conv_bias'),
            (f'x_proj{suffix}.weight', 'x_proj_weight'),
            (f'dt_proj{suffix}.weight', 'dt_projs_weight'),
            (f'dt_proj{suffix}.bias', 'dt_projs_bias'),
        )
    ),
    *plain.COMMON_RULES,
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original Vim (bimamba_type 'v2')."""
    return any(key.endswith('.mixer.A_b_log') for key in keys)


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original Vim's tensors and find its arch.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = plain.common_fields(weights)
    if plain.grid_side(weights) == _FINE_SIDE:
        fields['patch_stride'] = 8
    arch = arch_name(Vim, {'patch_stride': 16, **fields}) or fields
    shapes = plain.expected_shapes(Vim, arch, weights)
    weights.check(_PACKING.unpack_shapes(shapes))
    backbone, head = weights.split_head()
    return _PACKING.pack(backbone, shapes), head, arch
