"""VMamba's original checkpoints (https://github.com/MzeroMiko/VMamba)."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..backbones import VMamba
from .key_map import (
    Converted,
    RenamedWeights,
    arch_name,
    between_stages,
    expected_shapes,
)

NAME = 'vmamba'

_BLOCK, _BLOCK_TO = 'layers.#.blocks.#', 'stages.#.blocks.#'
_DOWN, _DOWN_TO = 'layers.{}.downsample', 'stages.{}.downsample'

# Original name -> mmssm's name, without the stem. LocalVMamba uses them, too.
COMMON_RULES = (
    (f'{_BLOCK}.norm.*', f'{_BLOCK_TO}.norm1.*'),
    (f'{_BLOCK}.norm2.*', f'{_BLOCK_TO}.norm2.*'),
    (f'{_BLOCK}.mlp.fc1.*', f'{_BLOCK_TO}.ffn.layers.0.0.*'),
    (f'{_BLOCK}.mlp.fc2.*', f'{_BLOCK_TO}.ffn.layers.1.*'),
    # In the SSD variant a permutation comes before the convolution: index 1.
    (f'{_BLOCK}.op.conv2d.1.*', f'{_BLOCK_TO}.mixer.conv2d.*'),
    (f'{_BLOCK}.op.*', f'{_BLOCK_TO}.mixer.*'),
    *between_stages(f'{_DOWN}.1.*', f'{_DOWN_TO}.conv.*'),
    *between_stages(f'{_DOWN}.3.*', f'{_DOWN_TO}.norm.*'),
    *between_stages(f'{_DOWN}.reduction.*', f'{_DOWN_TO}.reduction.*'),
    *between_stages(f'{_DOWN}.norm.*', f'{_DOWN_TO}.norm.*'),
    ('classifier.norm.*', 'norm3.*'),
    ('outnorm#.*', 'norm#.*'),
    ('classifier.head.*', 'head.fc.*'),
    # Names of earlier releases, which the original's own loader also takes.
    (f'{_BLOCK}.ln_1.*', f'{_BLOCK_TO}.norm1.*'),
    (f'{_BLOCK}.self_attention.*', f'{_BLOCK_TO}.mixer.*'),
    ('norm.*', 'norm3.*'),
    ('head.*', 'head.fc.*'),
)
# Those of a block, by the names within it. ChangeMamba's decoder uses them.
BLOCK_RULES = tuple(
    (old.removeprefix(f'{_BLOCK}.'), new.removeprefix(f'{_BLOCK_TO}.'))
    for old, new in COMMON_RULES
    if old.startswith(_BLOCK)
)
_CONV_STEM_RULES = (
    ('patch_embed.0.*', 'stem.conv1.*'),
    ('patch_embed.2.*', 'stem.norm1.*'),
    ('patch_embed.5.*', 'stem.conv2.*'),
    ('patch_embed.7.*', 'stem.norm2.*'),
)
PATCH_STEM_RULES = (
    ('patch_embed.0.*', 'stem.conv.*'),
    ('patch_embed.2.*', 'stem.norm.*'),
    ('patch_embed.proj.*', 'stem.conv.*'),
    ('patch_embed.norm.*', 'stem.norm.*'),
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original VMamba, new or old."""
    return any(
        re.search(r'\.blocks\.\d+\.(op|self_attention)\.x_proj_weight$', key)
        for key in keys
    )


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original VMamba's tensors and find its arch.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    has_conv_stem = 'patch_embed.5.weight' in state_dict
    stem = _CONV_STEM_RULES if has_conv_stem else PATCH_STEM_RULES
    weights = RenamedWeights(state_dict, stem + COMMON_RULES)
    fields = _arch_fields(weights)
    arch = arch_name(VMamba, fields) or fields
    expected = expected_shapes(VMamba, arch, weights)
    for name, value in weights.items():
        # The originals store some linear layers as 1x1 convolutions.
        if value.shape[2:] == (1, 1) and len(expected.get(name, ())) == 2:
            weights[name] = value.flatten(1)
    weights.check(expected)
    return *weights.split_head(), arch


def _arch_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch fields that names and shapes show."""
    stem = 'conv' if 'stem.conv2.weight' in weights else 'patch'
    first = 'stem.conv2' if stem == 'conv' else 'stem.conv'
    block = 'stages.0.blocks.0'
    dims = weights.size(f'{first}.weight', 0)
    inner = weights.size(f'{block}.mixer.x_proj_weight', 2)
    ssd = not any(name.endswith('.mixer.dt_projs_weight') for name in weights)
    hidden = 0
    if f'{block}.ffn.layers.0.0.weight' in weights:
        hidden = weights.size(f'{block}.ffn.layers.0.0.weight', 0)
    merging = 'stages.1.downsample.reduction.weight' in weights
    fields = dict(
        embed_dims=dims,
        depths=weights.depths(),
        d_state=_d_state(weights, f'{block}.mixer', ssd),
        ssm_ratio=inner / dims,
        mlp_ratio=hidden / dims,
        stem=stem,
        downsample='merging' if merging else 'conv',
        gate=f'{block}.mixer.gate_proj.weight' in weights,
        conv_bias=f'{block}.mixer.conv2d.bias' in weights,
        mixer='ssd' if ssd else 'ss2d',
    )
    if ssd:  # a file does not show these; all SSD variants have them
        fields.update(act='GELU', ssm_init='uniform')
    return fields


def _d_state(weights: RenamedWeights, mixer: str, ssd: bool) -> int:
    states = weights.size(f'{mixer}.A_logs', 1)
    if not ssd:
        return states
    # Rows of x_proj: one dt per head, then B and C.
    return (weights.size(f'{mixer}.x_proj_weight', 1) - states) // 2
