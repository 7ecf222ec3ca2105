"""VMamba's original checkpoints (https://github.com/MzeroMiko/VMamba)."""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .errors import CheckpointError

NAME = 'vmamba'

Arch = str | dict

# Names of earlier releases, which the original's own loader accepts too.
_OLD_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.0.'),
    (r'^patch_embed\.norm\.', 'patch_embed.2.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.ln_1\.', r'\1.norm.'),
    (r'^(layers\.\d+\.blocks\.\d+)\.self_attention\.', r'\1.op.'),
    (r'^(norm|head)\.', r'classifier.\1.'),
)

_BLOCK = r'^layers\.(\d+)\.blocks\.(\d+)'
_BLOCK_TO = r'stages.\1.blocks.\2'
_MIXER_TO = rf'{_BLOCK_TO}.mixer'
_DOWN = r'^layers\.(\d+)\.downsample'
_DOWN_TO = r'stages.\1.downsample'
_END = r'(weight|bias)$'

# Original name -> mmssm's name in the backbone, but for the stem.
_COMMON = (
    (rf'{_BLOCK}\.norm\.{_END}', rf'{_BLOCK_TO}.norm1.\3'),
    (rf'{_BLOCK}\.norm2\.{_END}', rf'{_BLOCK_TO}.norm2.\3'),
    (rf'{_BLOCK}\.mlp\.fc1\.{_END}', rf'{_BLOCK_TO}.ffn.layers.0.0.\3'),
    (rf'{_BLOCK}\.mlp\.fc2\.{_END}', rf'{_BLOCK_TO}.ffn.layers.1.\3'),
    (rf'{_BLOCK}\.op\.(in_proj|out_proj)\.weight$', rf'{_MIXER_TO}.\3.weight'),
    (rf'{_BLOCK}\.op\.out_norm\.{_END}', rf'{_MIXER_TO}.out_norm.\3'),
    (
        rf'{_BLOCK}\.op\.'
        r'(x_proj_weight|dt_projs_weight|dt_projs_bias|A_logs|Ds)$',
        rf'{_MIXER_TO}.\3',
    ),
    # The SSD variant's convolution stands behind a permutation: index 1.
    (rf'{_BLOCK}\.op\.conv2d(?:\.1)?\.{_END}', rf'{_MIXER_TO}.conv2d.\3'),
    (rf'{_DOWN}\.1\.{_END}', rf'{_DOWN_TO}.conv.\2'),
    (rf'{_DOWN}\.3\.{_END}', rf'{_DOWN_TO}.norm.\2'),
    (rf'{_DOWN}\.reduction\.weight$', rf'{_DOWN_TO}.reduction.weight'),
    (rf'{_DOWN}\.norm\.{_END}', rf'{_DOWN_TO}.norm.\2'),
    (rf'^classifier\.norm\.{_END}', r'norm3.\1'),
    (rf'^outnorm(\d)\.{_END}', r'norm\1.\2'),
)
_STEMS = dict(
    conv=(
        (rf'^patch_embed\.0\.{_END}', r'stem.conv1.\1'),
        (rf'^patch_embed\.2\.{_END}', r'stem.norm1.\1'),
        (rf'^patch_embed\.5\.{_END}', r'stem.conv2.\1'),
        (rf'^patch_embed\.7\.{_END}', r'stem.norm2.\1'),
    ),
    patch=(
        (rf'^patch_embed\.0\.{_END}', r'stem.conv.\1'),
        (rf'^patch_embed\.2\.{_END}', r'stem.norm.\1'),
    ),
)
_HEAD = ((rf'^classifier\.head\.{_END}', r'fc.\1'),)

# The arch fields that leave a trace in keys or shapes.
_VISIBLE = (
    'embed_dims',
    'depths',
    'd_state',
    'ssm_ratio',
    'mlp_ratio',
    'stem',
    'downsample',
    'gate',
    'conv_bias',
    'mixer',
)


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original VMamba, new or old."""
    return any(
        re.search(r'\.blocks\.\d+\.(op|self_attention)\.x_proj_weight$', key)
        for key in keys
    )


def convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Arch]:
    """Rename an original VMamba's tensors and recognise its arch.

    Args:
        state_dict (Mapping[str, Tensor]): A classifier's or a backbone's
            weights under the original names.

    Returns:
        tuple[dict, dict, str or dict]: The backbone's and the head's weights
        under mmssm's names, and the ``arch`` for ``mmssm.VMamba``.

    Raises:
        CheckpointError: A key is unknown, missing or given twice, or a shape
            does not belong to the arch.
    """
    original = {_new_name(key): value for key, value in state_dict.items()}
    arch = _recognise(original)
    backbone, head = _rename(original, arch)
    _check_head(head, backbone)
    expected = _expected_shapes(arch, backbone)
    for key, value in backbone.items():
        # The originals store some linear layers as 1x1 convolutions.
        if value.ndim == 4 and len(expected.get(key, ())) == 2:
            backbone[key] = value.flatten(1)
    _compare(expected, backbone)
    return backbone, head, _named(arch)


def _new_name(key: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _rename(
    original: Mapping[str, Tensor], arch: dict
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    backbone: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for key, value in original.items():
        name = _apply(_STEMS[arch['stem']] + _COMMON, key)
        part = backbone
        if name is None:
            name, part = _apply(_HEAD, key), head
        if name is None:
            raise CheckpointError(
                f'key {key!r} is not one of its own; this may be a variant '
                'that mmssm does not have'
            )
        if name in part:
            raise CheckpointError(f'two of its keys mean {name}, one is {key}')
        part[name] = value
    return backbone, head


def _apply(rules, key: str) -> str | None:
    for pattern, replacement in rules:
        if re.search(pattern, key):
            return re.sub(pattern, replacement, key)
    return None


def _recognise(original: Mapping[str, Tensor]) -> dict:
    """Read the arch fields of :data:`_VISIBLE` off keys and shapes."""
    block = 'layers.0.blocks.0'
    stem = 'conv' if 'patch_embed.5.weight' in original else 'patch'
    first = 'patch_embed.5' if stem == 'conv' else 'patch_embed.0'
    dims = _shape(original, f'{first}.weight')[0]
    inner = _shape(original, f'{block}.op.x_proj_weight')[2]
    ssd = f'{block}.op.dt_projs_weight' not in original
    hidden = original.get(f'{block}.mlp.fc1.weight')
    arch = dict(
        embed_dims=dims,
        depths=_depths(original),
        d_state=_d_state(original, block, ssd),
        ssm_ratio=inner / dims,
        mlp_ratio=0.0 if hidden is None else hidden.shape[0] / dims,
        stem=stem,
        downsample='merging'
        if 'layers.0.downsample.reduction.weight' in original
        else 'conv',
        gate=_shape(original, f'{block}.op.in_proj.weight')[0] == 2 * inner,
        conv_bias=any(
            f'{block}.op.{conv}.bias' in original
            for conv in ('conv2d', 'conv2d.1')
        ),
        mixer='ssd' if ssd else 'ss2d',
    )
    if ssd:  # not to be seen in the file; all SSD variants have these
        arch.update(act='GELU', ssm_init='uniform')
    return arch


def _shape(original: Mapping[str, Tensor], key: str) -> torch.Size:
    if key not in original:
        raise CheckpointError(f'key {key!r} is missing')
    return original[key].shape


def _depths(original: Mapping[str, Tensor]) -> list:
    last: dict[int, int] = {}
    for key in original:
        block = re.match(_BLOCK, key)
        if block:
            stage, number = int(block[1]), int(block[2])
            last[stage] = max(last.get(stage, 0), number)
    if sorted(last) != [0, 1, 2, 3]:
        raise CheckpointError(
            f'it has blocks in the stages {sorted(last)} instead of [0, 1, 2, '
            '3]'
        )
    return [last[stage] + 1 for stage in range(4)]


def _d_state(original: Mapping[str, Tensor], block: str, ssd: bool) -> int:
    if not ssd:
        return _shape(original, f'{block}.op.A_logs')[1]
    # Rows of x_proj: one step size per head, then B and C.
    rows = _shape(original, f'{block}.op.x_proj_weight')[1]
    heads = _shape(original, f'{block}.op.A_logs')[1]
    return (rows - heads) // 2


def _named(arch: dict) -> Arch:
    """The arch's name, if it has one; else its visible fields."""
    from mmssm.backbones import VMamba

    for name, settings in VMamba.arch_settings.items():
        if _visible(settings) == _visible(arch):
            return name
    return arch


def _visible(arch: Mapping) -> dict:
    fields = {key: arch[key] for key in _VISIBLE}
    fields['depths'] = list(fields['depths'])
    return fields


def _expected_shapes(
    arch: dict, backbone: Mapping[str, Tensor]
) -> dict[str, torch.Size]:
    """Keys and shapes of mmssm's model with the output norms that are there.

    Built on the meta device, which holds no numbers.
    """
    from mmssm.backbones import VMamba

    norms = sorted({key[:5] for key in backbone if re.match(r'norm\d\.', key)})
    name = _named(arch)
    with torch.device('meta'):
        model = VMamba(
            arch=name, out_indices=tuple(int(n[4]) for n in norms) or (3,)
        )
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    if not norms:  # a bare backbone, saved without any
        shapes = {k: v for k, v in shapes.items() if not k.startswith('norm')}
    return shapes


def _compare(
    expected: Mapping[str, torch.Size], given: Mapping[str, Tensor]
) -> None:
    for key, shape in expected.items():
        if key not in given:
            raise CheckpointError(f'the weight for {key} is missing')
        if given[key].shape != shape:
            raise CheckpointError(
                f'the weight for {key} has shape {tuple(given[key].shape)} '
                f'instead of {tuple(shape)}'
            )
    for key in given:
        if key not in expected:
            raise CheckpointError(
                f'the weight for {key} has no place in the arch that its '
                'other keys show'
            )


def _check_head(
    head: Mapping[str, Tensor], backbone: Mapping[str, Tensor]
) -> None:
    if not head:
        return
    for key in ('fc.weight', 'fc.bias'):
        if key not in head:
            raise CheckpointError(f"the classifier's {key} is missing")
    classes, width = head['fc.weight'].shape[:2]
    if head['fc.bias'].shape != (classes,):
        raise CheckpointError(
            f"the classifier's bias has shape {tuple(head['fc.bias'].shape)} "
            f'instead of {(classes,)}'
        )
    if 'norm3.weight' in backbone and (
        backbone['norm3.weight'].shape != (width,)
    ):
        raise CheckpointError(
            f'the classifier takes {width} channels, the last norm gives '
            f'{tuple(backbone["norm3.weight"].shape)}'
        )
