"""Spatial-Mamba's checkpoints (https://github.com/EdwardChasel/Spatial-Mamba).

A classifier's file holds a whole training state. The authors evaluate the
weights under ``model``.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..backbones import SpatialMamba
from .key_map import (
    Converted,
    Packing,
    RenamedWeights,
    arch_name,
    between_stages,
    expected_shapes,
)

NAME = 'spatial_mamba'

_BLOCK, _BLOCK_TO = 'layers.#.blocks.#', 'stages.#.blocks.#'
_MIXER, _MIXER_TO = f'{_BLOCK}.self_attention', f'{_BLOCK_TO}.mixer'
_DOWN = 'layers.{}.downsample.conv.#'
_DOWN_TO = 'stages.{}.downsample.conv.#'
_FILTERS = Packing(3, (), filters=('.mixer.fusion_weight',))

# Original name -> mmssm's name. Filter i of the three is '<name>.<i>'.
_RULES = (
    ('patch_embed.conv1.conv.*', 'stem.conv1.conv.*'),
    ('patch_embed.conv1.norm.*', 'stem.conv1.bn.*'),
    ('patch_embed.conv#.#.conv.*', 'stem.conv#.#.conv.*'),
    ('patch_embed.conv#.#.norm.*', 'stem.conv#.#.bn.*'),
    (f'{_BLOCK}.ln_#.*', f'{_BLOCK_TO}.norm#.*'),
    (f'{_BLOCK}.cpe#.*', f'{_BLOCK_TO}.cpe#.*'),
    (f'{_BLOCK}.mlp.fc1.*', f'{_BLOCK_TO}.ffn.layers.0.0.*'),
    (f'{_BLOCK}.mlp.fc2.*', f'{_BLOCK_TO}.ffn.layers.1.*'),
    (f'{_MIXER}.state_fusion.kernel_3', f'{_MIXER_TO}.fusion_weight.0'),
    (f'{_MIXER}.state_fusion.kernel_3_1', f'{_MIXER_TO}.fusion_weight.1'),
    (f'{_MIXER}.state_fusion.kernel_3_2', f'{_MIXER_TO}.fusion_weight.2'),
    (f'{_MIXER}.state_fusion.alpha', f'{_MIXER_TO}.fusion_alpha'),
    (f'{_MIXER}.*', f'{_MIXER_TO}.*'),
    *between_stages(f'{_DOWN}.conv.*', f'{_DOWN_TO}.conv.*'),
    *between_stages(f'{_DOWN}.norm.*', f'{_DOWN_TO}.bn.*'),
    ('norm.*', 'norm3.*'),
    ('outnorm#.*', 'norm#.*'),
    ('head.*', 'head.fc.*'),
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original Spatial-Mamba."""
    return any('.self_attention.state_fusion.' in key for key in keys)


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original Spatial-Mamba's tensors and find its arch.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    weights = RenamedWeights(state_dict, _RULES)
    fields = _arch_fields(weights)
    arch = arch_name(SpatialMamba, fields) or fields
    shapes = expected_shapes(SpatialMamba, arch, weights)
    weights.check(_FILTERS.unpack_shapes(shapes))
    backbone, head = weights.split_head()
    return _FILTERS.pack(backbone, shapes), head, arch


def _arch_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch fields that names and shapes show."""
    block = 'stages.0.blocks.0'
    dims = weights.size('stem.conv3.1.conv.weight', 0)
    return dict(
        embed_dims=dims,
        depths=weights.depths(),
        ssm_ratio=weights.size(f'{block}.mixer.x_proj_weight', 1) / dims,
        mlp_ratio=weights.size(f'{block}.ffn.layers.0.0.weight', 0) / dims,
    )
