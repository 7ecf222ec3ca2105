"""What holds for the files of every family."""

import pytest
import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from mmssm.backbones import (
    FractalMamba,
    LocalVim,
    LocalVMamba,
    SpatialMamba,
    Vim,
    VMamba,
)
from mmssm.checkpoint import convert_upstream

SEARCHED = dict(
    embed_dims=32,
    depths=[2, 2, 9, 2],
    d_state=16,
    ssm_ratio=2.0,
    directions='search',
)
SEARCHED_PLAIN = dict(
    embed_dims=128,
    depth=20,
    patch_size=16,
    d_state=16,
    ssm_ratio=2.0,
    class_token=False,
    rope=True,
    directions='search',
)
WIDER = dict(depths=[2, 2, 13, 2], ssm_ratio=2.0, mlp_ratio=4.0)
ARCHS = {
    'local_vmamba': dict(
        local_vmamba_tiny='tiny',
        local_vmamba_small='small',
        local_vmamba_tiny_search=SEARCHED,
        local_vmamba_tiny_backbone='tiny',
    ),
    'local_vim': dict(
        local_vim_tiny='tiny',
        local_vim_tiny_midcls='tiny-midcls',
        local_vim_small='small',
        local_vim_tiny_search=SEARCHED_PLAIN,
        local_vim_tiny_backbone='tiny',
    ),
    'vim': dict(vim_tiny='tiny', vim_small='small', vim_base='base'),
    'vmamba': dict(
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
        vmamba_tiny_s1l8_backbone='tiny-s1l8',
    ),
    'spatial_mamba': dict(
        spatial_mamba_tiny='tiny',
        spatial_mamba_small='small',
        spatial_mamba_base='base',
        spatial_mamba_tiny_backbone='tiny',
    ),
    'groot_v': dict(
        groot_v_tiny='tiny',
        groot_v_small=dict(WIDER, embed_dims=96),
        groot_v_base=dict(WIDER, embed_dims=128),
    ),
}
BACKBONES = dict(
    groot_v=FractalMamba,
    local_vmamba=LocalVMamba,
    local_vim=LocalVim,
    vim=Vim,
    vmamba=VMamba,
    spatial_mamba=SpatialMamba,
)
MODELS = [
    (family, model) for family, archs in ARCHS.items() for model in archs
]
# One classifier and one backbone of each family.
TINY = dict(
    local_vmamba='local_vmamba_tiny',
    local_vim='local_vim_tiny',
    vim='vim_tiny',
    vmamba='vmamba_tiny_s1l8',
    spatial_mamba='spatial_mamba_tiny',
)
# Those whose authors' backbones have norms at their outputs.
WITH_OUTPUTS = [family for family in TINY if family != 'vim']
PLAIN = ('local_vim', 'vim')


def outputs(family):
    """Arguments that give a backbone the outputs of the authors' files."""
    if family in PLAIN:
        return dict(out_type='featmap', out_indices=(4, 9, 14, 19))
    return dict(out_indices=(0, 1, 2, 3))


def last_norm(family):
    return 'norm' if family in PLAIN else 'norm3'


def tensors(*keys):
    return {key: torch.ones(1) for key in keys}


def test_every_model_is_converted(upstream_keys):
    assert {model for _, model in MODELS} == set(upstream_keys)


@pytest.mark.parametrize('family, model', MODELS)
def test_released_model(original, shapes, model_shapes, family, model):
    arch = ARCHS[family][model]
    converted = convert_upstream(dict(model=original(model)), 'file.pth')
    assert converted['meta']['mmssm'] == dict(
        family=family, arch=arch, source='file.pth', container='model'
    )
    found = shapes(converted['state_dict'])
    arguments = outputs(family)
    if not model.endswith('_backbone'):
        arguments = {}
        width = found[f'backbone.{last_norm(family)}.weight'][0]
        if family == 'groot_v':  # a convolution comes before the last layer
            width = width * 3 // 2
            assert found.pop('head.conv.weight')[0] == width
            for key in [k for k in found if k.startswith('head.bn.')]:
                assert found.pop(key) in ((width,), ())
        assert found.pop('head.fc.weight') == (1000, width)
        assert found.pop('head.fc.bias') == (1000,)
    assert found == model_shapes(BACKBONES[family], arch=arch, **arguments)


@pytest.mark.parametrize(
    'wrap, container',
    [
        (lambda w: w, 'none'),
        (lambda w: dict(model=w, epoch=292), 'model'),
        (lambda w: dict(state_dict=w), 'state_dict'),
        (lambda w: dict(model_ema=w, max_accuracy=82.6), 'model_ema'),
        (lambda w: dict(model_ema=tensors('a'), model=w), 'model'),
        (
            lambda w: dict(model={f'module.{k}': v for k, v in w.items()}),
            'model',
        ),
    ],
)
@pytest.mark.parametrize('family', TINY)
def test_containers(original, shapes, family, wrap, container):
    weights = original(TINY[family])
    plain = convert_upstream(weights, 'x.pth')
    wrapped = convert_upstream(wrap(weights), 'x.pth')
    assert wrapped['meta']['mmssm']['container'] == container
    assert shapes(wrapped['state_dict']) == shapes(plain['state_dict'])


@pytest.mark.parametrize('family', WITH_OUTPUTS)
def test_detector_keeps_its_neck_and_heads(
    original, shapes, model_shapes, family
):
    backbone = original(f'{TINY[family]}_backbone')
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
    assert found == model_shapes(
        BACKBONES[family], arch='tiny', **outputs(family)
    )


@pytest.mark.parametrize('family', WITH_OUTPUTS)
def test_backbone_without_any_norm(original, shapes, model_shapes, family):
    weights = original(f'{TINY[family]}_backbone')
    weights = {k: v for k, v in weights.items() if k[:7] != 'outnorm'}
    converted = convert_upstream(weights, 'x.pth')
    expected = model_shapes(BACKBONES[family], arch='tiny')
    norm = f'backbone.{last_norm(family)}.'
    expected = {k: v for k, v in expected.items() if not k.startswith(norm)}
    assert shapes(converted['state_dict']) == expected


@pytest.mark.parametrize('family', TINY)
def test_loading_converts(tmp_path, golden, family):
    case = golden(f'{TINY[family]}_cls')
    torch.save(dict(model=case.state_dict()), tmp_path / 'released.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'released.pth'))
    model = nn.Module()
    with torch.device('meta'):
        model.backbone = BACKBONES[family](loaded['meta']['mmssm']['arch'])
        model.head = nn.Module()
        norm = getattr(model.backbone, last_norm(family))
        model.head.fc = nn.Linear(norm.normalized_shape[0], 1000)
    model.load_state_dict(loaded['state_dict'], assign=True)
    originals = case.state_dict()
    last = max(k for k in originals if k.endswith('head.bias'))
    assert torch.equal(model.head.fc.bias, originals[last])


@pytest.mark.parametrize(
    'checkpoint',
    [
        [1, 2],
        {},
        dict(epoch=3),
        dict(model=torch.nn.Linear(1, 1)),
        tensors('conv1.weight', 'fc.bias'),
        tensors('encoder.conv1.weight', 'decoder.conv1.weight'),
        dict(
            state_dict=tensors(
                'backbone.layer1.0.conv1.weight', 'head.fc.bias'
            )
        ),
        dict(
            meta={},
            state_dict=tensors(
                'backbone.stages.0.blocks.0.mixer.x_proj_weight',
                'backbone.stages.0.blocks.0.mixer.fusion_weight',
            ),
            optimizer={},
        ),
    ],
)
def test_other_checkpoints_are_left_alone(checkpoint):
    assert convert_upstream(checkpoint, 'x.pth') is None
