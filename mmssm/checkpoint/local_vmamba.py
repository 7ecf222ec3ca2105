"""LocalVMamba's checkpoints (https://github.com/hunto/LocalMamba)."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..backbones import LocalVMamba
from .key_map import (
    Converted,
    RenamedWeights,
    arch_name,
    expected_shapes,
)
from .local_mamba import (
    check_directions,
    flatten_search_weights,
    search_fields,
)
from .vmamba import COMMON_RULES, PATCH_STEM_RULES

NAME = 'local_vmamba'

_MERGE = 'layers.#.blocks.#.op.multi_scan'
_MERGE_TO = 'stages.#.blocks.#.mixer.merge'

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


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original LocalVMamba's tensors and find its arch.

    A file does not hold its scan directions: those of the arch are taken.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = _arch_fields(weights)
    arch = arch_name(LocalVMamba, fields) or fields
    check_directions(
        LocalVMamba,
        arch,
        sum(fields['depths']),
        weights.size('stages.0.blocks.0.mixer.x_proj_weight', 0),
    )
    flatten_search_weights(weights)
    weights.check(expected_shapes(LocalVMamba, arch, weights))
    return *weights.split_head(), arch


def _arch_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch fields that names and shapes show."""
    mixer = 'stages.0.blocks.0.mixer'
    dims = weights.size('stem.conv.weight', 0)
    return dict(
        embed_dims=dims,
        depths=weights.depths(),
        d_state=weights.size(f'{mixer}.A_logs', 1),
        ssm_ratio=weights.size(f'{mixer}.x_proj_weight', 2) / dims,
        **search_fields(weights),
    )
