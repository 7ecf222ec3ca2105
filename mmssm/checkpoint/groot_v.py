"""GrootV's checkpoints (https://github.com/EasonXiao-888/MambaTree).

They are not FractalMamba's: its authors released none. Its reconstruction
takes them, since all but the tree is the same.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from ..backbones import FractalMamba
from .key_map import (
    Arch,
    RenamedWeights,
    arch_name,
    expected_shapes,
)

NAME = 'groot_v'
NOTE = (
    'weights of GrootV, which learnt with a tree of each image: for '
    "FractalMamba's fixed trees a start of training, no finished model"
)

_BLOCK, _BLOCK_TO = 'levels.#.blocks.#', 'stages.#.blocks.#'
_DOWN, _DOWN_TO = 'levels.#.downsample', 'stages.#.downsample'

# Original name -> mmssm's name.
_RULES = (
    ('patch_embed.conv1.*', 'stem.conv1.*'),
    ('patch_embed.norm1.1.*', 'stem.norm1.*'),
    ('patch_embed.conv2.*', 'stem.conv2.*'),
    ('patch_embed.norm2.1.*', 'stem.norm2.*'),
    (f'{_BLOCK}.norm1.0.*', f'{_BLOCK_TO}.norm1.*'),
    (f'{_BLOCK}.norm2.0.*', f'{_BLOCK_TO}.norm2.*'),
    (f'{_BLOCK}.TreeSSM.*', f'{_BLOCK_TO}.mixer.*'),
    (f'{_BLOCK}.mlp.fc1.*', f'{_BLOCK_TO}.ffn.layers.0.0.*'),
    (f'{_BLOCK}.mlp.fc2.*', f'{_BLOCK_TO}.ffn.layers.1.*'),
    ('levels.#.norm.0.*', 'norm#.*'),
    (f'{_DOWN}.conv.*', f'{_DOWN_TO}.conv.*'),
    (f'{_DOWN}.norm.1.*', f'{_DOWN_TO}.norm.*'),
    ('conv_head.0.*', 'head.conv.*'),
    ('conv_head.1.0.*', 'head.bn.*'),
    ('head.*', 'head.fc.*'),
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original GrootV."""
    return any('.TreeSSM.' in key for key in keys)


def convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Arch]:
    """Rename an original GrootV's tensors and recognise its arch.

    Args:
        state_dict (Mapping[str, Tensor]): A classifier's weights under the
            original names.

    Returns:
        tuple[dict, dict, str or dict]: The backbone's and the head's weights
        under mmssm's names, and the ``arch`` for ``mmssm.FractalMamba``.

    Raises:
        CheckpointError: A key is unknown, missing or given twice, or a shape
            does not belong to the arch.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = _recognise(weights)
    arch = arch_name(FractalMamba, fields) or fields
    shapes = expected_shapes(FractalMamba, arch, weights)
    if weights.has_head():
        shapes.update(_conv_head_shapes(weights, shapes))
    weights.check(shapes)
    return *weights.parts(), arch


def _conv_head_shapes(weights: RenamedWeights, shapes: dict) -> dict:
    """Those of the head, whose linear layer follows a convolution."""
    classes = shapes['head.fc.bias'][0]
    width = shapes['norm3.weight'][0]
    wide = weights.size('head.conv.weight', 0)
    names = ('weight', 'bias', 'running_mean', 'running_var')
    return {
        'head.fc.weight': (classes, wide),
        'head.conv.weight': (wide, width, 1, 1),
        **{f'head.bn.{name}': (wide,) for name in names},
        'head.bn.num_batches_tracked': (),
    }


def _recognise(weights: RenamedWeights) -> dict:
    """Read those arch fields off that leave a trace in names or shapes."""
    block = 'stages.0.blocks.0'
    dims = weights.size('stem.conv2.weight', 0)
    return dict(
        embed_dims=dims,
        depths=weights.depths(),
        ssm_ratio=weights.size(f'{block}.mixer.x_proj_weight', 2) / dims,
        mlp_ratio=weights.size(f'{block}.ffn.layers.0.0.weight', 0) / dims,
    )
