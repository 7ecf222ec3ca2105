"""GrootV's checkpoints (https://github.com/EasonXiao-888/MambaTree).

FractalMamba's authors released no checkpoints. Its reconstruction takes
GrootV's, because everything but the tree is the same.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..backbones import FractalMamba
from .key_map import (
    Converted,
    RenamedWeights,
    Shapes,
    arch_name,
    between_stages,
    expected_shapes,
)

NAME = 'groot_v'
NOTE = (
    'weights of GrootV, trained with a tree of each image; train them '
    "further before you use them with FractalMamba's fixed trees"
)

_BLOCK, _BLOCK_TO = 'levels.#.blocks.#', 'stages.#.blocks.#'
_DOWN, _DOWN_TO = 'levels.{}.downsample', 'stages.{}.downsample'

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
    *between_stages(f'{_DOWN}.conv.*', f'{_DOWN_TO}.conv.*'),
    *between_stages(f'{_DOWN}.norm.1.*', f'{_DOWN_TO}.norm.*'),
    ('conv_head.0.*', 'head.conv.*'),
    ('conv_head.1.0.*', 'head.bn.*'),
    ('head.*', 'head.fc.*'),
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original GrootV."""
    return any('.TreeSSM.' in key for key in keys)


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original GrootV's tensors and find its arch.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = _arch_fields(weights)
    arch = arch_name(FractalMamba, fields) or fields
    shapes = expected_shapes(FractalMamba, arch, weights)
    if weights.has_head():
        shapes.update(_conv_head_shapes(weights, shapes))
    weights.check(shapes)
    return *weights.split_head(), arch


def _conv_head_shapes(weights: RenamedWeights, shapes: Shapes) -> Shapes:
    """Shapes of the head: a convolution, a batch norm and a linear layer."""
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


def _arch_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch fields that names and shapes show."""
    block = 'stages.0.blocks.0'
    dims = weights.size('stem.conv2.weight', 0)
    return dict(
        embed_dims=dims,
        depths=weights.depths(),
        ssm_ratio=weights.size(f'{block}.mixer.x_proj_weight', 2) / dims,
        mlp_ratio=weights.size(f'{block}.ffn.layers.0.0.weight', 0) / dims,
    )
