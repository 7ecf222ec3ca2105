"""Vim's checkpoints (https://github.com/hustvl/Vim)."""

from collections.abc import Collection, Mapping

from torch import Tensor

from ..backbones import Vim
from . import plain
from .key_map import Arch, RenamedWeights, arch_name

NAME = 'vim'

_MIXER = 'layers.#.mixer'
_PACKING = plain.packing(2)
# Patches of a 224 x 224 image that lie 8 pixels apart, in one row.
_FINE_SIDE = 27

# Of each mixer's two routes the backward one's names have a '_b'.
_RULES = (
    (f'{_MIXER}.A_log', f'{_MIXER}.A_logs.0'),
    (f'{_MIXER}.A_b_log', f'{_MIXER}.A_logs.1'),
    *(
        (f'{_MIXER}.{old}', f'{_MIXER}.{new}.{route}')
        for route, mark in enumerate(('', '_b'))
        for old, new in (
            (f'D{mark}', 'Ds'),
            (f'conv1d{mark}.weight', 'conv_weight'),
            (f'conv1d{mark}.bias', 'conv_bias'),
            (f'x_proj{mark}.weight', 'x_proj_weight'),
            (f'dt_proj{mark}.weight', 'dt_projs_weight'),
            (f'dt_proj{mark}.bias', 'dt_projs_bias'),
        )
    ),
    *plain.COMMON_RULES,
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original Vim, of its second kind."""
    return any(key.endswith('.mixer.A_b_log') for key in keys)


def convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Arch]:
    """Rename an original Vim's tensors and recognise its arch.

    Args:
        state_dict (Mapping[str, Tensor]): A classifier's weights under the
            original names.

    Returns:
        tuple[dict, dict, str or dict]: The backbone's and the head's weights
        under mmssm's names, and the ``arch`` for ``mmssm.Vim``.

    Raises:
        CheckpointError: A key is unknown, missing or given twice, or a shape
            does not belong to the arch.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = plain.common_fields(weights)
    if plain.side(weights) == _FINE_SIDE:
        fields['patch_stride'] = 8
    arch = arch_name(Vim, {'patch_stride': 16, **fields}) or fields
    shapes = plain.expected_shapes(Vim, arch, weights)
    weights.check(_PACKING.apart(shapes))
    backbone, head = weights.parts()
    return _PACKING.together(backbone, shapes), head, arch
