"""LocalVim's checkpoints (https://github.com/hunto/LocalMamba)."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from mmssm.utils import CheckpointError

from ..backbones import LocalVim
from . import plain
from .key_map import Arch, RenamedWeights, arch_name, check_directions

NAME = 'local_vim'

_MIXER = 'layers.#.mixer'
_SEARCHED = '.merge.weights'

_RULES = (
    ('rope.freqs_cos', 'rope.cos'),
    ('rope.freqs_sin', 'rope.sin'),
    # On a CPU the original's A_log_0 to A_log_3 are one memory, since it makes
    # them of one tensor, and loading leaves the last one's values in all. On
    # a GPU, where its files come from, each route has and learns its own.
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


def convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Arch]:
    """Rename an original LocalVim's tensors and recognise its arch.

    A file does not tell its scan directions: those of the arch are meant.
    Positions are those of the file's image size, which a model's ``img_size``
    must repeat where the file is loaded as it is. Outputs of a backbone are
    taken to come after layers at equal distances, as the originals' do.

    Args:
        state_dict (Mapping[str, Tensor]): A classifier's, a supernet's or a
            backbone's weights under the original names; norms of either kind.

    Returns:
        tuple[dict, dict, str or dict]: The backbone's and the head's weights
        under mmssm's names, and the ``arch`` for ``mmssm.LocalVim``.

    Raises:
        CheckpointError: A key is unknown, missing or given twice, or a shape
            does not belong to the arch.
    """
    weights = RenamedWeights(state_dict, (*_output_norms(state_dict), *_RULES))
    fields = _recognise(weights)
    arch = arch_name(LocalVim, fields) or fields
    routes = _num_routes(weights)
    check_directions(LocalVim, arch, fields['depth'], routes)
    for name, value in weights.items():
        if name.endswith(_SEARCHED):
            weights[name] = value.flatten()
    norm = 'layer' if 'layers.0.norm.bias' in weights else 'rms'
    shapes = plain.expected_shapes(LocalVim, arch, weights, norm=norm)
    packing = plain.packing(routes)
    weights.check(packing.apart(shapes))
    backbone, head = weights.parts()
    return packing.together(backbone, shapes), head, arch


def _output_norms(keys: Collection[str]) -> list[tuple[str, str]]:
    """The original numbers outputs, mmssm's norms bear the layers' numbers.

    The originals return layers at equal distances, the last one among them.
    """
    outputs = {k.split('.')[0] for k in keys if k.startswith('outnorm_')}
    layers = {k.split('.')[1] for k in keys if k.startswith('layers.')}
    distance, rest = divmod(len(layers), max(1, len(outputs)))
    if rest and outputs:
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


def _recognise(weights: RenamedWeights) -> dict:
    fields = plain.common_fields(weights)
    fields['rope'] = 'rope.cos' in weights
    if any(name.endswith(_SEARCHED) for name in weights):
        fields['directions'] = 'search'
    return fields
