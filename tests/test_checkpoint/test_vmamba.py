import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmssm.backbones import VMamba
from mmssm.checkpoint import CheckpointError, convert_upstream

# {model: depths and original key -> shape}; ``blocks.*`` stands for each of a
# stage's blocks.
KEYS = json.loads(
    (
        Path(__file__).parents[1] / 'data' / 'upstream_keys' / 'vmamba.json'
    ).read_text()
)
ARCHS = dict(
    vanilla_vmamba_tiny='vanilla-tiny',
    vanilla_vmamba_small='vanilla-small',
    vanilla_vmamba_base='vanilla-base',
    vmamba_tiny_s2l5='tiny-s2l5',
    vmamba_small_s2l15='small-s2l15',
    vmamba_base_s2l15='base-s2l15',
    vmamba_tiny_s1l8='tiny-s1l8',
    vmamba_small_s1l20='small-s1l20',
    vmamba_base_s1l20='base-s1l20',
    vmamba_tiny_m2='tiny-m2',
)
BLOCK = 'layers.0.blocks.0.'


def original(model):
    """An original's state dict; the tensors take no memory."""
    found = {}
    for key, shape in KEYS[model]['keys'].items():
        stage = int(key.split('.')[1]) if '*' in key else 0
        for block in range(KEYS[model]['depths'][stage] if '*' in key else 1):
            found[key.replace('*', str(block))] = torch.zeros(()).expand(shape)
    return found


def model_shapes(**kwargs):
    with torch.device('meta'):
        model = VMamba(**kwargs)
    return {f'backbone.{k}': v.shape for k, v in model.state_dict().items()}


def shapes(state_dict):
    return {key: value.shape for key, value in state_dict.items()}


@pytest.mark.parametrize('model', ARCHS)
def test_classifier(model):
    converted = convert_upstream(dict(model=original(model)), 'file.pth')
    meta = converted['meta']['mmssm']
    assert meta == dict(
        family='vmamba',
        arch=ARCHS[model],
        source='file.pth',
        container='model',
    )
    found = shapes(converted['state_dict'])
    width = found['backbone.norm3.weight'][0]
    assert found.pop('head.fc.weight') == (1000, width)
    assert found.pop('head.fc.bias') == (1000,)
    assert found == model_shapes(arch=ARCHS[model])


def test_values_go_where_they_belong():
    weights = original('vmamba_tiny_s1l8')
    moves = {
        'patch_embed.7.weight': 'stem.norm2.weight',
        f'{BLOCK}norm.weight': 'stages.0.blocks.0.norm1.weight',
        f'{BLOCK}op.Ds': 'stages.0.blocks.0.mixer.Ds',
        f'{BLOCK}norm2.weight': 'stages.0.blocks.0.norm2.weight',
        f'{BLOCK}mlp.fc2.bias': 'stages.0.blocks.0.ffn.layers.1.bias',
        'layers.1.downsample.3.bias': 'stages.1.downsample.norm.bias',
        'classifier.norm.bias': 'norm3.bias',
    }
    for number, key in enumerate(moves):
        weights[key] = torch.full(weights[key].shape, float(number + 1))
    converted = convert_upstream(weights, 'x.pth')['state_dict']
    for number, target in enumerate(moves.values()):
        assert converted[f'backbone.{target}'][0] == number + 1


@pytest.mark.parametrize(
    'wrap, container',
    [
        (lambda w: w, 'none'),
        (lambda w: dict(model=w, epoch=292), 'model'),
        (lambda w: dict(state_dict=w), 'state_dict'),
        (lambda w: dict(model_ema=w, max_accuracy=82.6), 'model_ema'),
        (
            lambda w: dict(model={f'module.{k}': v for k, v in w.items()}),
            'model',
        ),
    ],
)
def test_containers(wrap, container):
    weights = original('vmamba_tiny_s1l8')
    plain = convert_upstream(weights, 'x.pth')
    wrapped = convert_upstream(wrap(weights), 'x.pth')
    assert wrapped['meta']['mmssm']['container'] == container
    assert shapes(wrapped['state_dict']) == shapes(plain['state_dict'])


def test_backbone():
    converted = convert_upstream(
        dict(model=original('vmamba_tiny_s1l8_backbone')), 'x.pth'
    )
    assert converted['meta']['mmssm']['arch'] == 'tiny-s1l8'
    assert shapes(converted['state_dict']) == model_shapes(
        arch='tiny-s1l8', out_indices=(0, 1, 2, 3)
    )


def test_detector_keeps_its_neck_and_heads():
    backbone = original('vmamba_tiny_s1l8_backbone')
    others = {
        'neck.lateral_convs.0.conv.weight': torch.ones(2),
        'roi_head.bbox_head.fc_cls.bias': torch.ones(81),
        'rpn_head.rpn_conv.norm.weight': torch.ones(3),
    }
    checkpoint = dict(
        meta=dict(dataset_meta=dict(classes=('cat',)), cfg='a lot of text'),
        state_dict={
            **{f'backbone.{k}': v for k, v in backbone.items()},
            **others,
        },
        optimizer=dict(state={}),
    )
    converted = convert_upstream(checkpoint, 'det.pth')
    assert sorted(converted) == ['meta', 'state_dict']
    assert converted['meta']['dataset_meta'] == dict(classes=('cat',))
    found = shapes(converted['state_dict'])
    for key in others:
        assert converted['state_dict'][key] is others[key]
        del found[key]
    assert found == model_shapes(arch='tiny-s1l8', out_indices=(0, 1, 2, 3))


def test_old_names():
    old = {}
    for key, value in original('vanilla_vmamba_tiny').items():
        key = key.replace('patch_embed.0.', 'patch_embed.proj.')
        key = key.replace('patch_embed.2.', 'patch_embed.norm.')
        key = key.replace('.norm.', '.ln_1.') if '.blocks.' in key else key
        key = key.replace('.op.', '.self_attention.')
        old[key.removeprefix('classifier.')] = value
    assert 'layers.0.blocks.0.ln_1.weight' in old
    assert 'layers.0.downsample.norm.weight' in old
    assert 'head.weight' in old
    converted = convert_upstream(dict(model=old), 'x.pth')
    new = convert_upstream(original('vanilla_vmamba_tiny'), 'x.pth')
    assert converted['meta']['mmssm']['arch'] == 'vanilla-tiny'
    assert shapes(converted['state_dict']) == shapes(new['state_dict'])


def test_linear_layers_stored_as_convolutions():
    weights = original('vmamba_tiny_s1l8')
    changed = 0
    for key, value in weights.items():
        if key.endswith(('proj.weight', 'fc1.weight', 'fc2.weight')):
            weights[key] = value[:, :, None, None]
            changed += 1
    assert changed == 4 * 14
    converted = convert_upstream(weights, 'x.pth')['state_dict']
    found = {k: v for k, v in shapes(converted).items() if 'head' not in k}
    assert found == model_shapes(arch='tiny-s1l8')


def test_arch_without_a_name():
    weights = original('vmamba_tiny_s1l8')
    for key in list(weights):
        if key.startswith('layers.2.blocks.7.'):
            del weights[key]
    converted = convert_upstream(weights, 'x.pth')
    arch = converted['meta']['mmssm']['arch']
    assert arch == dict(
        embed_dims=96,
        depths=[2, 2, 7, 2],
        d_state=1,
        ssm_ratio=1.0,
        mlp_ratio=4.0,
        stem='conv',
        downsample='conv',
        gate=False,
        conv_bias=False,
        mixer='ss2d',
    )
    found = {
        key: shape
        for key, shape in shapes(converted['state_dict']).items()
        if 'head' not in key
    }
    assert found == model_shapes(arch=arch)


def without(key):
    return lambda weights: weights.pop(key)


def with_shape(key, *shape):
    return lambda weights: weights.update({key: torch.zeros(shape)})


@pytest.mark.parametrize(
    'damage, named',
    [
        (with_shape('pos_embed', 1), "key 'pos_embed'"),
        (with_shape(f'{BLOCK}op.skip.weight', 1), r'op\.skip\.weight'),
        (without(f'{BLOCK}op.A_logs'), r'op\.A_logs'),
        (
            without('layers.3.blocks.1.op.Ds'),
            r'stages\.3\.blocks\.1\.mixer\.Ds',
        ),
        (without('classifier.norm.bias'), r'norm3\.bias is missing'),
        (without('classifier.head.bias'), r'fc\.bias is missing'),
        (without('patch_embed.2.weight'), r'stem\.norm1\.weight is missing'),
        (
            with_shape('layers.1.blocks.0.norm.weight', 7),
            r'stages\.1\.blocks\.0\.norm1\.weight has shape \(7,\) instead of '
            r'\(192,\)',
        ),
        (
            with_shape('layers.0.downsample.1.weight', 192, 96, 2, 2),
            r'downsample\.conv\.weight has shape',
        ),
        (with_shape('classifier.head.weight', 1000, 5), 'takes 5 channels'),
        (with_shape('outnorm3.weight', 768), 'two of its keys mean norm3'),
    ],
)
def test_wrong_key_or_shape_is_named(damage, named):
    weights = original('vmamba_tiny_s1l8')
    damage(weights)
    with pytest.raises(CheckpointError, match=named) as caught:
        convert_upstream(dict(model=weights), 'some.pth')
    assert str(caught.value).startswith('some.pth looks like vmamba, but ')
    assert '\n' not in str(caught.value)


def test_loading_converts(tmp_path, golden):
    case = golden('vmamba_tiny_s1l8_cls')
    torch.save(dict(model=case.state_dict()), tmp_path / 'released.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'released.pth'))
    model = VMamba(arch=loaded['meta']['mmssm']['arch'])
    prefix = 'backbone.'
    model.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in loaded['state_dict'].items()
            if key.startswith(prefix)
        }
    )
