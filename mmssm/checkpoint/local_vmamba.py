"""LocalVMamba's checkpoints (https://github.com/hunto/LocalMamba)."""

from collections.abc import Collection, Mapping

from torch import Tensor

from ..backbones import LocalVMamba
from .key_map import (
    Arch,
    RenamedWeights,
    arch_name,
    check_directions,
    expected_shapes,
)
from .vmamba import COMMON_RULES, PATCH_STEM_RULES

NAME = 'local_vmamba'

_MERGE = 'layers.#.blocks.#.op.multi_scan'
_MERGE_TO = 'stages.#.blocks.#.mixer.merge'
_SEARCHED = '.merge.weights'

_RULES = (
    (f'{_MERGE}.attn.norm.*', f'{_MERGE_TO}.norm.*'),
    (f'{_MERGE}.attn.global_reduce.*', f'{_MERGE_TO}.reduce.*'),
    (f'{_MERGE}.attn.channel_select.*', f'{_MERGE_TO}.select.*'),
    (f'{_MERGE}.weights', f'{_MERGE_TO}.weights'),
    *PATCH_STEM_RULES,
    *COMMON_RULES,
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original LocalVMamba."""
    return any('.op.multi_scan.' in key for key in keys)


def convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Arch]:
    """Rename an original LocalVMamba's tensors and recognise its arch.

    A file does not tell its scan directions: those of the arch are meant.

    Args:
        state_dict (Mapping[str, Tensor]): A classifier's, a supernet's or a
            backbone's weights under the original names.

    Returns:
        tuple[dict, dict, str or dict]: The backbone's and the head's weights
        under mmssm's names, and the ``arch`` for ``mmssm.LocalVMamba``.

    Raises:
        CheckpointError: A key is unknown, missing or given twice, or a shape
            does not belong to the arch.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = _recognise(weights)
    arch = arch_name(LocalVMamba, fields) or fields
    check_directions(
        LocalVMamba,
        arch,
        sum(fields['depths']),
        weights.size('stages.0.blocks.0.mixer.x_proj_weight', 0),
    )
    for name, value in weights.items():
        if name.endswith(_SEARCHED):
            weights[name] = value.flatten()
    weights.check(expected_shapes(LocalVMamba, arch, weights))
    return *weights.parts(), arch


def _recognise(weights: RenamedWeights) -> dict:
    """Read those arch fields off that leave a trace in names or shapes."""
    mixer = 'stages.0.blocks.0.mixer'
    dims = weights.size('stem.conv.weight', 0)
    fields = dict(
        embed_dims=dims,
        depths=weights.depths(),
        d_state=weights.size(f'{mixer}.A_logs', 1),
        ssm_ratio=weights.size(f'{mixer}.x_proj_weight', 2) / dims,
    )
    if any(name.endswith(_SEARCHED) for name in weights):
        fields['directions'] = 'search'
    return fields
