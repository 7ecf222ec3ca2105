"""ChangeMamba's checkpoints of binary change detection (MambaBCD).

https://github.com/ChenHongruixuan/ChangeMamba. Its encoder is VMamba's
backbone. The files of 2024 number the decoder's stages from 1, the shallowest
(``st_block_<stage><scan>``); the code of 2026 counts them from the deepest.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from mmssm.utils import CheckpointError

from ..layers import SS2D, VSSBlock
from . import vmamba
from .key_map import Converted, RenamedWeights, Shapes, shapes_of

NAME = 'change_mamba'
HEAD = 'decode_head'

_ENCODER = 'encoder.'
_STAGES = range(1, 5)
# The scans of a pair, in the order of their numbers in the files of 2024.
_SCANS = ('cat', 'interleave', 'split')


def _stage_rules(block: str, fuse: str, smooth: str, stage: int) -> list:
    """Rules of a stage; ``block`` has a place for the scan's name."""
    to = f'fusions.{stage - 1}'
    rules = []
    for number, scan in enumerate(_SCANS, 1):
        old = block.format(number=number, scan=scan)
        rules.append((f'{old}.0.*', f'{to}.{scan}.0.*'))
        rules += [
            (f'{old}.2.{part}', f'{to}.{scan}.1.{part_to}')
            for part, part_to in vmamba.BLOCK_RULES
        ]
    rules += [
        (f'{fuse}.0.*', f'{to}.merge.conv.*'),
        (f'{fuse}.1.*', f'{to}.merge.bn.*'),
        (f'{smooth}.*', f'residuals.{stage - 1}.*'),
    ]
    return rules


# Original name -> mmssm's name in the head.
_RULES_2024 = [
    rule
    for stage in _STAGES
    for rule in _stage_rules(
        f'decoder.st_block_{stage}{{number}}',
        f'decoder.fuse_layer_{stage}',
        f'decoder.smooth_layer_{stage}',
        stage,
    )
]
_RULES_2026 = [
    rule
    for stage in _STAGES
    for rule in _stage_rules(
        f'decoder.stage_blocks.{4 - stage}.{{scan}}',
        f'decoder.fuse_layers.{4 - stage}',
        f'decoder.smooth_layers.{3 - stage}',
        stage,
    )
]
_RULES = (*_RULES_2024, *_RULES_2026, ('main_clf.*', 'conv_seg.*'))


def matches(keys: Collection[str]) -> bool:
    """Whether the keys are those of an original ChangeMamba."""
    encoder = [key for key in keys if key.startswith(_ENCODER)]
    # Semantic change detection has several decoders, with longer names.
    decodes = any(key.startswith('decoder') for key in keys)
    return decodes and vmamba.matches(encoder)


def convert(state_dict: Mapping[str, Tensor]) -> Converted:
    """Rename an original ChangeMamba's tensors and find its arch.

    Takes, returns and raises what every family's function does, see
    :mod:`mmssm.checkpoint.upstream`.
    """
    encoder = {
        key.removeprefix(_ENCODER): value
        for key, value in state_dict.items()
        if key.startswith(_ENCODER)
    }
    head = RenamedWeights(
        {k: v for k, v in state_dict.items() if not k.startswith(_ENCODER)},
        _RULES,
    )
    try:
        backbone, classifier, arch = vmamba.convert(encoder)
    except CheckpointError as error:
        raise CheckpointError(f'in its encoder, {error}') from error
    if classifier:
        raise CheckpointError('its encoder has a classifier')
    shapes = _head_shapes(head, _widths(backbone))
    for name, value in head.items():
        # Linear layers of the tokens are 1 x 1 convolutions there.
        if value.shape[2:] == (1, 1) and len(shapes.get(name, ())) == 2:
            head[name] = value.flatten(1)
    head.check(shapes)
    return backbone, _fold_biases(head), arch


def _widths(backbone: Mapping[str, Tensor]) -> list[int]:
    """Channels of the encoder's maps, which the norms of the outputs show."""
    norms = {i: backbone.get(f'norm{i}.weight') for i in range(4)}
    for i, norm in norms.items():
        if norm is None:
            raise CheckpointError(
                f"key '{_ENCODER}outnorm{i}.weight' is missing"
            )
    return [len(norm) for norm in norms.values()]


def _head_shapes(weights: RenamedWeights, widths: list[int]) -> Shapes:
    """Shapes of the decoder's tensors, with the biases before its norms.

    Args:
        weights (RenamedWeights): The file's.
        widths (list[int]): The channels of the encoder's maps.
    """
    channels = weights.size('fusions.0.merge.conv.weight', 0)
    first = 'fusions.0.cat.1'
    mixer = dict(
        d_state=weights.size(f'{first}.mixer.A_logs', 1),
        ssm_ratio=weights.size(f'{first}.mixer.x_proj_weight', 2) / channels,
        conv_bias=f'{first}.mixer.conv2d.bias' in weights,
    )
    hidden = weights.size(f'{first}.ffn.layers.0.0.weight', 0)
    block = shapes_of(
        lambda: VSSBlock(channels, SS2D(channels, **mixer), hidden / channels)
    )
    shapes: Shapes = {}
    for i, width in enumerate(widths):
        for scan in _SCANS:
            inputs = 2 * width if scan == 'cat' else width
            place = f'fusions.{i}.{scan}'
            shapes[f'{place}.0.weight'] = (channels, inputs)
            shapes[f'{place}.0.bias'] = (channels,)
            shapes.update({f'{place}.1.{k}': v for k, v in block.items()})
        merge = f'fusions.{i}.merge'
        shapes[f'{merge}.conv.weight'] = (channels, 5 * channels, 1, 1)
        shapes[f'{merge}.conv.bias'] = (channels,)
        shapes.update(_norm_shapes(f'{merge}.bn', channels))
    for i in range(len(widths) - 1):
        for number in (1, 2):
            convolution = f'residuals.{i}.conv{number}.weight'
            shapes[convolution] = (channels, channels, 3, 3)
            shapes.update(_norm_shapes(f'residuals.{i}.bn{number}', channels))
    classes = weights.size('conv_seg.weight', 0)
    shapes['conv_seg.weight'] = (classes, channels, 1, 1)
    shapes['conv_seg.bias'] = (classes,)
    return shapes


def _norm_shapes(name: str, channels: int) -> Shapes:
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    return {
        **{f'{name}.{part}': (channels,) for part in parts},
        f'{name}.num_batches_tracked': (),
    }


def _fold_biases(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move biases of convolutions into the means of the norms behind them.

    mmcv's convolutions have no bias before a norm, which takes it away again:
    (x + b) - mean = x - (mean - b).
    """
    end = '.merge.conv.bias'
    folded = {k: v for k, v in head.items() if not k.endswith(end)}
    for key in head.keys() - folded.keys():
        mean = f'{key.removesuffix(end)}.merge.bn.running_mean'
        folded[mean] = head[mean] - head[key]
    return folded
