"""What the checkpoints of plain models, Vim and LocalVim, have in common."""

import re

from mmssm.utils import CheckpointError

from ..backbones.plain import PlainBackbone
from .key_map import (
    Arch,
    Packing,
    RenamedWeights,
    Rules,
    Shapes,
    shapes_of,
)

# Original name -> mmssm's name. What is given once for each route of a mixer
# is '<name>.<number of the route>'.
COMMON_RULES: Rules = (
    ('pos_embed', 'pos_embed'),
    ('cls_token', 'cls_token'),
    ('patch_embed.proj.*', 'stem.conv.*'),
    ('layers.#.norm.*', 'layers.#.norm.*'),
    ('layers.#.mixer.in_proj.weight', 'layers.#.mixer.in_proj.weight'),
    ('layers.#.mixer.out_proj.weight', 'layers.#.mixer.out_proj.weight'),
    ('norm_f.*', 'norm.*'),
    ('head.*', 'head.fc.*'),
)


def packing(routes: int) -> Packing:
    """The tensors of a mixer that hold all routes'."""
    ends = (
        'x_proj_weight',
        'dt_projs_weight',
        'dt_projs_bias',
        'A_logs',
        'Ds',
        'conv_bias',
    )
    return Packing(
        routes,
        tuple(f'.mixer.{end}' for end in ends),
        filters=('.mixer.conv_weight',),
    )


def common_fields(weights: RenamedWeights) -> dict:
    """Those arch fields of both that leave a trace in names or shapes.

    Raises:
        CheckpointError: The file lacks a tensor that shows one.
    """
    dims = weights.size('stem.conv.weight', 0)
    return dict(
        embed_dims=dims,
        depth=_depth(weights),
        patch_size=weights.size('stem.conv.weight', 3),
        d_state=weights.size('layers.0.mixer.A_logs.0', 1),
        ssm_ratio=weights.size('layers.0.mixer.out_proj.weight', 1) / dims,
        class_token='cls_token' in weights,
    )


def side(weights: RenamedWeights) -> int:
    """Rows and columns of the map whose positions the file has.

    Raises:
        CheckpointError: They do not make a square.
    """
    tokens = weights.size('pos_embed', 1) - ('cls_token' in weights)
    rows = round(tokens**0.5)
    if rows * rows != tokens:
        raise CheckpointError(
            f'key {weights.original("pos_embed")!r} has positions of {tokens} '
            'patches, which make no square map'
        )
    return rows


def expected_shapes(
    backbone: type[PlainBackbone],
    arch: Arch,
    weights: RenamedWeights,
    **options,
) -> Shapes:
    """What such a file must hold: names and shapes of the model's tensors.

    A head and the norm before it are expected where the file has a part of
    either, output norms where it has them.

    Args:
        backbone (type): mmssm's class.
        arch (str | dict): Its arch.
        weights (RenamedWeights): The file's.
        **options: More arguments of the class.

    Returns:
        dict[str, tuple[int, ...]]: Shapes by mmssm's names.

    Raises:
        CheckpointError: No model has this arch.
    """
    fields = backbone.parse_arch(arch)[1]
    image = (side(weights) - 1) * fields['patch_stride'] + fields['patch_size']
    found = (re.match(r'norm(\d+)\.', name) for name in weights)
    outputs = sorted({int(norm[1]) for norm in found if norm})
    if outputs:
        options.update(out_type='featmap', out_indices=outputs)
    shapes = shapes_of(lambda: backbone(arch, img_size=image, **options))
    classifier = weights.has_head() or 'norm.weight' in weights
    if not outputs and not classifier:
        shapes = {k: v for k, v in shapes.items() if k[:5] != 'norm.'}
    return {**shapes, **weights.head_shapes(fields['embed_dims'])}


def _depth(weights: RenamedWeights) -> int:
    numbers = {
        int(name.split('.')[1]) for name in weights if name[:7] == 'layers.'
    }
    if numbers != set(range(len(numbers))):
        raise CheckpointError(f'it has only the layers {sorted(numbers)}')
    return len(numbers)
