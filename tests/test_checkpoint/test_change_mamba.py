"""ChangeMamba's files, in the forms of 2024 and of 2026."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmssm.checkpoint import convert_upstream
from mmssm.checkpoint.strict_load import load_exactly, open_checkpoint
from mmssm.utils import CheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs' / 'change_mamba'
CASE = 'change_mamba_bcd_tiny'
SCANS = {'1': 'cat', '2': 'interleave', '3': 'split'}


def build(arch):
    cfg = Config.fromfile(
        CONFIGS / f'changemamba_vmamba-{arch}_levir-cd-plus.py'
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model)


def names_of_2026(weights):
    """The same weights as the authors' code of 2026 names them."""
    new = {}
    for key, value in weights.items():
        key = re.sub(
            r'st_block_(\d)(\d)',
            lambda m: f'stage_blocks.{4 - int(m[1])}.{SCANS[m[2]]}',
            key,
        )
        key = re.sub(
            r'fuse_layer_(\d)', lambda m: f'fuse_layers.{4 - int(m[1])}', key
        )
        key = re.sub(
            r'smooth_layer_(\d)',
            lambda m: f'smooth_layers.{3 - int(m[1])}',
            key,
        )
        new[key] = value
    return new


@pytest.fixture
def weights(golden):
    """A file's keys and shapes; the tensors take no memory."""
    return {
        key: torch.zeros(()).expand(shape)
        for key, shape in golden(CASE).meta['keys']
    }


@pytest.mark.parametrize('rename', [dict, names_of_2026])
def test_output_is_the_originals(tmp_path, golden, rename):
    """Converter and config together, as the tools use them."""
    case = golden(CASE)
    torch.save(rename(case.state_dict()), tmp_path / 'released.pth')
    checkpoint = open_checkpoint(str(tmp_path / 'released.pth'))
    assert checkpoint['meta']['mmssm']['family'] == 'change_mamba'
    model = build(checkpoint['meta']['mmssm']['arch'])
    load_exactly(model, checkpoint)
    # The biases of four convolutions are in the norms behind them.
    count = sum(p.numel() for p in model.parameters())
    assert count + 4 * 128 == case.meta['params'] == 32_613_506
    before = case.input()
    case.meta['seed'] += 1
    pair = torch.cat((before, case.input()), 1)
    model.eval()
    with torch.no_grad():
        out = model.encode_decode(pair, [dict(img_shape=pair.shape[2:])])
    assert case.error('logits', out) <= 2e-4


@pytest.mark.parametrize('rename', [dict, names_of_2026])
@pytest.mark.parametrize(
    'wrap, container',
    [
        (lambda w: w, 'none'),
        (lambda w: dict(state_dict=w), 'state_dict'),
        (lambda w: dict(model=w, optimizer={}, epoch=3), 'model'),
        (lambda w: {f'module.{k}': v for k, v in w.items()}, 'none'),
    ],
)
def test_containers(weights, rename, wrap, container):
    converted = convert_upstream(wrap(rename(weights)), 'x.pth')
    assert converted['meta']['mmssm'] == dict(
        family='change_mamba',
        arch='tiny-s2l4',
        source='x.pth',
        container=container,
    )
    roots = {key.partition('.')[0] for key in converted['state_dict']}
    assert roots == {'backbone', 'decode_head'}


@pytest.mark.parametrize(
    'encoder, arch, width',
    [
        ('vmamba_small_s2l15', 'small-s2l15', 96),
        ('vmamba_base_s2l15', 'base-s2l15', 128),
    ],
)
def test_small_and_base(weights, original, shapes, encoder, arch, width):
    decoder = {}
    for key, value in weights.items():
        if key.startswith('encoder.layers') or 'patch_embed' in key:
            continue
        if 'outnorm' in key or '.0.weight' in key and 'block' in key:
            size = [*value.shape]
            size[0 if 'outnorm' in key else 1] *= width / 96
            value = torch.zeros(()).expand([int(n) for n in size])
        decoder[key] = value
    encoder = {
        f'encoder.{key}': value
        for key, value in original(encoder).items()
        if not key.startswith('classifier')
    }
    converted = convert_upstream({**encoder, **decoder}, 'x.pth')
    assert converted['meta']['mmssm']['arch'] == arch
    with torch.device('meta'):
        expected = build(arch).state_dict()
    assert shapes(converted['state_dict']) == shapes(expected)


BLOCK = 'decoder.st_block_41.2'


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'main_clf.bias': None}, "key 'main_clf.bias' is missing"),
        ({f'{BLOCK}.op.Ds': None}, f"key '{BLOCK}.op.Ds' is missing"),
        (
            {'decoder.fuse_layer_2.0.bias': None},
            "key 'decoder.fuse_layer_2.0.bias' is missing",
        ),
        (
            {'decoder.smooth_layer_3.bn1.bias': (7,)},
            "key 'decoder.smooth_layer_3.bn1.bias' has shape (7,) instead of "
            '(128,)',
        ),
        (
            {'decoder.st_block_13.0.weight': (128, 95, 1, 1)},
            "key 'decoder.st_block_13.0.weight' has shape (128, 95",
        ),
        ({'aux.weight': (1,)}, "key 'aux.weight' is not one of its own"),
        # The fourth stage has no residual block.
        (
            {'decoder.smooth_layer_4.conv1.weight': (128, 128, 3, 3)},
            "key 'decoder.smooth_layer_4.conv1.weight' is not one of its own",
        ),
        (
            {'decoder.fuse_layers.2.1.bias': (128,)},
            "its keys 'decoder.fuse_layer_2.1.bias' and "
            "'decoder.fuse_layers.2.1.bias' mean the same",
        ),
        (
            {'encoder.layers.0.blocks.0.op.Ds': None},
            "in its encoder, key 'layers.0.blocks.0.op.Ds' is missing",
        ),
        (
            {'encoder.outnorm2.weight': None, 'encoder.outnorm2.bias': None},
            "key 'encoder.outnorm2.weight' is missing",
        ),
        # A model of semantic change detection.
        (
            {'decoder_bcd.st_block_41.0.bias': (128,)},
            "key 'decoder_bcd.st_block_41.0.bias' is not one of its own",
        ),
    ],
)
def test_wrong_key_or_shape_is_named(weights, changes, message):
    for key, shape in changes.items():
        if shape is None:
            del weights[key]
        else:
            weights[key] = torch.zeros(shape)
    with pytest.raises(CheckpointError) as caught:
        convert_upstream(weights, 'some.pth')
    start = f'some.pth looks like change_mamba, but {message}'
    assert str(caught.value).startswith(start)
    assert '\n' not in str(caught.value)


def test_missing_key_of_2026_is_named(weights):
    weights = names_of_2026(weights)
    del weights['decoder.stage_blocks.0.split.2.norm2.bias']
    with pytest.raises(
        CheckpointError, match=r"'decoder.stage_blocks.0.split.2.norm2.bias' "
    ):
        convert_upstream(weights, 'some.pth')


def test_biases_go_into_the_means(weights):
    for stage in range(1, 5):
        name = f'decoder.fuse_layer_{stage}'
        weights[f'{name}.0.bias'] = torch.full((128,), float(stage))
        weights[f'{name}.1.running_mean'] = torch.ones(128)
    state = convert_upstream(weights, 'x.pth')['state_dict']
    for i in range(4):
        merge = f'decode_head.fusions.{i}.merge'
        assert f'{merge}.conv.bias' not in state
        means = state[f'{merge}.bn.running_mean']
        assert np.array_equal(means, np.full(128, -float(i)))
