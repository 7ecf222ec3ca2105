import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from mmssm import VMamba
from mmssm.apis.loop_checks import check_hooks, check_loops
from mmssm.apis.optimizer_checks import (
    check_layer_decay,
    check_optimizer,
    check_schedules,
)
from mmssm.utils import ConfigError
from mmssm.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'


def training(schedules=None, loop=None, wrapper=None, **optimizer):
    optimizer = dict(type='AdamW', lr=0.1) | optimizer
    return Config(
        dict(
            model=dict(type='Net'),
            train_cfg=loop or dict(by_epoch=True, max_epochs=8),
            optim_wrapper=dict(optimizer=optimizer, **(wrapper or {})),
            param_scheduler=schedules,
        )
    )


def refused(check, cfg):
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('paramwise_cfg', 'optimizer', 'message'),
    [
        (dict(norm_decay_mult=0.0), {}, 'set optim_wrapper.optimizer.weight'),
        (dict(flat_decay_mult=0.0), {}, 'set optim_wrapper.optimizer.weight'),
        (
            dict(custom_keys=dict(pos=dict(decay_mult=0.0))),
            {},
            "paramwise_cfg.custom_keys['pos'].decay_mult multiplies the opti",
        ),
        (
            dict(custom_keys=dict(pos=dict(decay_mult=0.0))),
            dict(lr=None, weight_decay=0.1),
            'set optim_wrapper.optimizer.lr, or leave',
        ),
        (dict(bias_lr_mult=2.0), dict(lr=None), 'optimizer.lr, or leave'),
    ],
)
def test_multipliers_of_nothing(paramwise_cfg, optimizer, message):
    cfg = training(wrapper=dict(paramwise_cfg=paramwise_cfg), **optimizer)
    assert message in refused(check_optimizer, cfg)
    cfg.optim_wrapper.optimizer.update(lr=0.1, weight_decay=0.1)
    check_optimizer(cfg)


@pytest.mark.parametrize(
    ('optimizer', 'message'),
    [
        (dict(lr='1e-4'), "lr must be a number, got '1e-4' (in YAML"),
        (dict(lr=None), 'optimizer.lr must be a number, got None'),
        (dict(lr=-1.0), 'optim_wrapper.optimizer: AdamW: Invalid learning'),
        (dict(weight_dekay=0.1), "did you mean 'weight_decay'?"),
        (dict(type=torch.optim.SGD, betas=1), "argument 'betas'; it takes"),
        (dict(type='Adamw'), "registry; did you mean 'AdamW'?"),
        (dict(type=None), 'optim_wrapper.optimizer must be a dict with a ty'),
    ],
)
def test_optimizers_that_cannot_be_built(optimizer, message):
    assert message in refused(check_optimizer, training(**optimizer))


@OPTIMIZERS.register_module()
class OwnOptimizer(torch.optim.SGD):
    pass


def test_optimizers_that_are_not_built_here():
    check_optimizer(training(type='OwnOptimizer', lr='much'))
    cfg = training()
    cfg.optim_wrapper = dict(constructor='Several', generator=dict(), lr='1')
    check_optimizer(cfg)


@pytest.mark.skipif(
    not hasattr(torch.optim, 'Muon'), reason='came with torch 2.9'
)
def test_an_optimizer_of_matrices():
    check_optimizer(training(type='Muon', lr=0.1))


@pytest.mark.parametrize('given', ['AdamW', None])
def test_optimizers_that_are_no_dicts(given):
    cfg = training()
    cfg.optim_wrapper.optimizer = given
    assert 'optim_wrapper.optimizer must' in refused(check_optimizer, cfg)


def test_optimizer_of_another_librarys_base():
    check_optimizer(training(_scope_='mmpretrain'))


def test_clipping():
    for clip_grad in (
        None,
        dict(max_norm=1.0),
        dict(type='value', clip_value=1.0),
    ):
        check_optimizer(training(wrapper=dict(clip_grad=clip_grad)))
    for clip_grad in (dict(max_nrm=1.0), dict(type='value', max_norm=1.0)):
        cfg = training(wrapper=dict(clip_grad=clip_grad))
        assert 'clip_grad: ' in refused(check_optimizer, cfg)


@pytest.mark.parametrize(
    'kind',
    [
        'AmpOptimWrapper',
        'mmengine.AmpOptimWrapper',
        'mmengine.optim.AmpOptimWrapper',
        AmpOptimWrapper,
    ],
)
def test_mixed_precision_that_needs_a_gpu(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = training(wrapper=dict(type=kind, dtype='float16'))
    assert 'optim_wrapper.dtype=bfloat16' in refused(check_optimizer, cfg)
    cfg.optim_wrapper.dtype = 'bfloat16'
    check_optimizer(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg.optim_wrapper.dtype = 'float16'
    check_optimizer(cfg)


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (
            dict(type='LinearLR', begin=5, end=2),
            'param_scheduler.1: LinearLR: end should be larger than begin',
        ),
        (
            dict(type='mmengine.PolyLR', begin=8),
            'got begin=8, end=8 (training ends after epoch 8)',
        ),
        (dict(type='LinearLR', start_factor=2.0), 'Starting multiplicative'),
        (dict(type='MultiStepLR', milestone=[3]), "mean 'milestones'?"),
        (dict(type='MultiStepLR'), 'missing 1 required'),
        (
            dict(type='LinearLR', by_epoch=False, convert_to_iter_based=True),
            'Only epoch-based',
        ),
        ('LinearLR', 'param_scheduler.1 must be a dict with a type'),
        (dict(begin=3), 'param_scheduler.1 must be a dict with a type'),
    ],
)
def test_schedules_that_cannot_be_built(schedule, message):
    cfg = training([dict(type='ConstantLR', end=2), schedule])
    assert message in refused(check_schedules, cfg)


@pytest.mark.parametrize(
    ('loop', 'schedule', 'message'),
    [
        (
            dict(by_epoch=True, max_epochs=8),
            dict(type='CosineAnnealingLR', end=12),
            'goes to epoch 12, but training ends after epoch 8',
        ),
        (
            dict(type='IterBasedTrainLoop', max_iters=100),
            dict(type='PolyLR', by_epoch=False, end=1000),
            'goes to iteration 1000, but training ends after iteration 100',
        ),
        (
            dict(by_epoch=False, max_iters=100),
            dict(type='PolyLR'),
            'counts epochs, but training counts iterations',
        ),
    ],
)
def test_schedules_that_do_not_fit_the_training(
    loop, schedule, message, capsys
):
    check_schedules(training(schedule, loop))
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ('loop', 'schedules'),
    [
        (None, None),
        (None, []),
        (None, dict(encoder=dict(type='PolyLR', begin=9))),  # of several
        (None, dict(type='CosineAnnealingLR', begin=2)),
        (None, dict(type='LinearLR', by_epoch=False, end=500)),
        (None, dict(type='PolyLR', end=8, convert_to_iter_based=True)),
        (None, dict(type='CosineAnnealingMomentum', end=8)),
        (
            dict(type='IterBasedTrainLoop', max_iters=100),
            dict(type='PolyLR', by_epoch=False),
        ),
        (None, dict(type='SomeoneElses', begin=3, end=1)),
    ],
)
def test_schedules_that_fit(loop, schedules, capsys):
    check_schedules(training(schedules, loop))
    assert not capsys.readouterr().err


def with_constructor(constructor, backbone='VMamba', **paramwise_cfg):
    optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=0.1),
        constructor=constructor,
        paramwise_cfg=paramwise_cfg,
    )
    return Config(
        dict(
            model=dict(backbone=dict(type=backbone)),
            optim_wrapper=optim_wrapper,
            default_scope='mmdet',
        )
    )


@pytest.mark.parametrize(
    'constructor',
    [
        'LearningRateDecayOptimizerConstructor',
        'mmseg.LearningRateDecayOptimizerConstructor',
        'LayerDecayOptimizerConstructor',
    ],
)
@pytest.mark.parametrize('backbone', ['LocalVim', VMamba, 'mmssm.VMamba'])
def test_layer_decay_of_another_library(constructor, backbone):
    cfg = with_constructor(
        constructor, backbone, decay_rate=0.7, num_layers=12
    )
    with pytest.raises(ConfigError) as caught:
        check_layer_decay(cfg)
    text = str(caught.value)
    assert "constructor='LayerDecayOptimWrapperConstructor'" in text
    assert 'dict(layer_decay_rate=0.7, flat_decay_mult=0.0)' in text
    assert '\n' not in text


@pytest.mark.parametrize(
    ('constructor', 'backbone'),
    [
        ('LearningRateDecayOptimizerConstructor', 'mmpretrain.ConvNeXt'),
        ('LayerDecayOptimWrapperConstructor', 'VMamba'),
        ('mmpretrain.LearningRateDecayOptimWrapperConstructor', 'VMamba'),
        (None, 'VMamba'),
    ],
)
def test_layer_decay_that_is_not_refused(constructor, backbone):
    check_layer_decay(with_constructor(constructor, backbone))


@pytest.mark.parametrize('key', ['layer_decay_rate', 'stem_lr_mult'])
def test_layer_decay_without_its_constructor(key):
    with pytest.raises(ConfigError, match=f'sets {key}, which only a'):
        check_layer_decay(with_constructor(None, **{key: 0.9}))


def test_the_suggested_settings_free_the_same_parameters():
    """Theirs free biases and all that has one dimension."""
    with pytest.raises(ConfigError) as caught:
        check_layer_decay(
            with_constructor('LearningRateDecayOptimizerConstructor')
        )
    (paramwise_cfg,) = re.findall(
        r'paramwise_cfg=(dict\(.*?\))', str(caught.value)
    )
    model = nn.Module()
    model.backbone = VMamba(dict(embed_dims=8, depths=(1, 1, 1, 1)))
    optimizer = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=eval(paramwise_cfg),
        ),
    ).optimizer
    decay = {
        id(p): group['weight_decay']
        for group in optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in model.named_parameters():
        free = parameter.ndim == 1 or name.endswith('.bias')
        assert decay[id(parameter)] == (0.0 if free else 0.5), name


@pytest.mark.parametrize(
    'name',
    [
        'vim/vim-tiny_8xb128_in1k',
        'vim/vim-tiny-in1k-pre_upernet_4xb8-60k_ade20k-512x512',
        'spatial_mamba/mask-rcnn_spatial-mamba-tiny_fpn_ms-crop-3x_coco',
        'local_mamba/local-vmamba-small-search_8xb128_in1k',
        'vmamba/changemamba_vmamba-tiny-s1l8_levir-cd-plus',
    ],
)
def test_a_released_config_passes_all_checks(name, capsys):
    cfg = load_config(str(CONFIGS / f'{name}.py'))
    check_loops(cfg, 'train', 'val', 'test')
    check_hooks(cfg)
    check_optimizer(cfg)
    check_schedules(cfg)
    assert not capsys.readouterr().err
