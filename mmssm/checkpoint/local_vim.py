"""LocalVim's checkpoints (https://github.com/hunto/LocalMamba)."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmssm.utils import CheckpointError

from ..backbones import LocalVim
from . import plain
from .key_map import Converted, RenamedWeights, arch_name
from .local_mamba import (
    check_directions,
    flatten_search_weights,
    search_fields,
)

NAME = 'local_vim'

_MIXER = 'layers.#.mixer'

_RULES = (
    ('rope.freqs_cos', 'rope.cos'),
    ('rope.freqs_sin', 'rope.sin'),
    # The original makes A_log_0 to A_log_3 from one tensor. On a CPU they
    # share its memory, so loading a file leaves the last one's values in all.
    # On a GPU, where the released files come from, each route has its own.
    (f'{_MIXER}.A_log_#', f'{_MIXER}.A_logs.#'),
    (f'{_MIXER}.D_#', f'{_MIXER}.Ds.#'),
    (f'{_MIXER}.conv1d_#.weight', f'{_MIXER}.conv_weight.#'),
    (f'{_MIXER}.conv1d_#.bias', f'{_MIXER}.conv_bias.#'),
    (f'{_MIXER}.x_proj_#.weight', f'{_MIXER}.x_proj_weight.#'),
    (f'{_MIXER}.dt_proj_#.weight', f'{_MIXER}.dt_projs_weight.#'),
    (f'{_MIXER}.dt_proj_#.bias', f'{_MIXER}.dt_projs_bias.#'),
    (f'{_MIXER}.attn.norm.*', f'{_MIXER}.merge.norm.*'),
    (f'{_MIXER}.attn.global_reduce.*', f'{_MIXER}.merge.reduce.*'),
    (f'{_MIXER}.attn.channel_select.*', f'{_MIXER}.merge.select.*'),
    (f'{_MIXER}.multi_scan.weights', f'{_MIXER}.merge.weights'),
    *plain.COMMON_RULES,
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original LocalVim."""
    return any(re.search(r'\.mixer\.x_proj_\d+\.weight$', k) for k in keys)


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original LocalVim's tensors and find its arch.

    A file does not hold its scan directions: those of the arch are taken. Its
    position tables keep the size of the file's images. A model that loads
    the converted weights as they are needs that ``img_size``. Outputs of a
    backbone are taken to follow layers at equal distances, as in the
    originals.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    weights = RenamedWeights(state_dict, (*_output_norms(state_dict), *_RULES))
    fields = _arch_fields(weights)
    arch = arch_name(LocalVim, fields) or fields
    num_routes = _num_routes(weights)
    check_directions(LocalVim, arch, fields['depth'], num_routes)
    flatten_search_weights(weights)
    norm = 'layer' if 'layers.0.norm.bias' in weights else 'rms'
    shapes = plain.expected_shapes(LocalVim, arch, weights, norm=norm)
    packing = plain.packing(num_routes)
    weights.check(packing.unpack_shapes(shapes))
    backbone, head = weights.split_head()
    return packing.pack(backbone, shapes), head, arch


def _output_norms(keys: Collection[str]) -> list[tuple[str, str]]:
    """Rules for the norms of outputs, whose numbers become their layers'.

    The originals return layers at equal distances, including the last one.
    """
    outputs = {k.split('.')[0] for k in keys if k.startswith('outnorm_')}
    layers = {k.split('.')[1] for k in keys if k.startswith('layers.')}
    distance, remainder = divmod(len(layers), max(1, len(outputs)))
    if remainder and outputs:
        raise CheckpointError(
            f'it has outputs after {len(outputs)} of {len(layers)} layers, '
            'which cannot be at equal distances'
        )
    return [
        (f'outnorm_{i}.*', f'norm{distance * (i + 1) - 1}.*')
        for i in range(len(outputs))
    ]


def _num_routes(weights: RenamedWeights) -> int:
    mixer = 'layers.0.mixer.Ds.'
    return sum(name.startswith(mixer) for name in weights)


def _arch_fields(weights: RenamedWeights) -> dict[str, Any]:
    fields = plain.common_fields(weights)
    return {
        **fields,
        'rope': 'rope.cos' in weights,
        **search_fields(weights),
    }
