"""What the checkpoints of plain models, Vim and LocalVim, have in common."""

import re
from typing import Any

from mmssm.utils import CheckpointError

from ..backbones.base import Arch
from ..backbones.plain import PlainBackbone
from .key_map import Packing, RenamedWeights, Rules, Shapes, shapes_of

# Original name -> mmssm's name. A mixer's tensor of route i is '<name>.<i>'.
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


def packing(num_routes: int) -> Packing:
    """The tensors of a mixer that an original holds once per route."""
    ends = (
        'x_proj_weight',
        'dt_projs_weight',
        'dt_projs_bias',
        'A_logs',
        'Ds',
        'conv_bias',
    )
    return Packing(
        num_routes,
        tuple(f'.mixer.{end}' for end in ends),
        filters=('.mixer.conv_weight',),
    )


def common_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch fields of both models that names and shapes show.

    Raises:
        CheckpointError: A tensor that shows one is missing.
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


def grid_side(weights: RenamedWeights) -> int:
    """Rows (and columns) of the square map whose positions the file has.

    Raises:
        CheckpointError: The positions are not those of a square map.
    """
    length = weights.size('pos_embed', 1) - ('cls_token' in weights)
    side = round(length**0.5)
    if side * side != length:
        raise CheckpointError(
            f'key {weights.original("pos_embed")!r} has positions of {length} '
            'patches, which make no square map'
        )
    return side


def expected_shapes(
    backbone: type[PlainBackbone],
    arch: Arch,
    weights: RenamedWeights,
    **options: Any,
) -> Shapes:
    """Names and shapes of the tensors that a file of this arch must hold.

    A classifier's head and the norm before it are expected if the file has a
    part of either. The norms of outputs are expected for the layers for which
    the file has any.

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
    gaps = grid_side(weights) - 1
    img_size = gaps * fields['patch_stride'] + fields['patch_size']
    found = (re.match(r'norm(\d+)\.', name) for name in weights)
    outputs = sorted({int(norm[1]) for norm in found if norm})
    if outputs:
        options.update(out_type='featmap', out_indices=outputs)
    shapes = shapes_of(lambda: backbone(arch, img_size=img_size, **options))
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
