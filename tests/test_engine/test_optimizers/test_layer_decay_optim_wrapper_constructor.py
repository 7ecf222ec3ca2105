"""Rates by layer: of every family, in every task, and in real steps."""

import copy
import logging

import pytest
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from small_models import (
    BACKBONES,
    SCOPES,
    Samples,
    change_detector,
    classifier,
    detector,
    pretraining,
    segmentor,
)
from torch import nn

import mmssm
from mmssm.engine import LayerDecayOptimWrapperConstructor, ScopedRunner
from mmssm.utils import ConfigError

LAYERS = 7  # of STAGES' five blocks
RATE = 0.5


def optim_wrapper(lr=1.0, decay=0.25, **paramwise_cfg):
    return dict(
        constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=lr, weight_decay=decay),
        paramwise_cfg=paramwise_cfg,
    )


def build(cfg, scope='mmpretrain'):
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(copy.deepcopy(cfg))


def settings(model, cfg, scope='mmpretrain'):
    """Each learning parameter's rate and weight decay, by name."""
    with DefaultScope.overwrite_default_scope(scope):
        optimizer = build_optim_wrapper(model, cfg).optimizer
    groups = {
        id(param): (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for param in group['params']
    }
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[key]: group for key, group in groups.items()}


def layer_of(name):
    """The layer of a parameter of a model with STAGES."""
    part, child, *rest = name.split('.')
    if part != 'backbone' or child.startswith('norm'):
        return LAYERS - 1
    if child == 'stem':
        return 0
    first = (1, 2, 3, 5)[int(rest[0])]
    return first + int(rest[2]) if rest[1] == 'blocks' else first - 1


@pytest.mark.parametrize('kind', BACKBONES)
def test_classifiers_rates_are_those_of_mmpretrains_constructor(kind):
    paramwise_cfg = dict(
        layer_decay_rate=RATE,
        norm_decay_mult=0.0,
        bias_decay_mult=0.5,
        flat_decay_mult=0.25,
        custom_keys={
            '.pos_embed': dict(decay_mult=0.0),
            'head': dict(decay_mult=2.0),
        },
    )
    model = build(classifier(kind))
    cfg = optim_wrapper(**paramwise_cfg)
    found = settings(model, cfg)
    cfg['constructor'] = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
    for name, theirs in settings(model, cfg).items():
        if kind_of(model, name) in ('bias of a mixer', 'RMSNorm'):
            theirs = theirs[0], found[name][1]  # see test_kinds
        assert found[name] == theirs, name
    rates = {lr for lr, _ in found.values()}
    num_layers = model.get_layer_depth('head')[1]
    assert rates == {RATE**i for i in range(num_layers)}
    assert {decay for _, decay in found.values()} >= {0.0, 0.125, 0.25, 0.5}


@pytest.mark.parametrize(
    ('task', 'cfg'),
    [
        ('classifier', classifier()),
        ('detector', detector()),
        ('segmentor', segmentor()),
        ('change_detector', change_detector()),
        ('pretraining', pretraining()),
    ],
)
def test_rates_in_every_task(task, cfg):
    model = build(cfg, SCOPES[task])
    found = settings(model, optim_wrapper(layer_decay_rate=RATE), SCOPES[task])
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, (lr, decay) in found.items():
        assert lr == RATE ** (LAYERS - 1 - layer_of(name)), name
        assert decay == 0.25


def test_settings_of_the_default_constructor_keep_their_meaning():
    """A rate is what it is without the constructor, times the layer's.

    Except for biases that mmengine's constructor does not know.
    """
    inherited = dict(
        bias_lr_mult=2.0,
        bias_decay_mult=0.5,
        norm_decay_mult=0.0,
        flat_decay_mult=0.25,
        dwconv_decay_mult=0.125,
        bypass_duplicate=True,
        custom_keys={
            'stages.1': dict(lr_mult=0.25),
            'stages.2.blocks.1': dict(lr_mult=4.0, decay_mult=3.0),
            'head.fc.weight': dict(lr_mult=0.5),
        },
    )
    model = build(classifier(frozen_stages=0))
    model.head.again = model.backbone.stages[3].blocks[0].norm1
    cfg = optim_wrapper(**inherited)
    del cfg['constructor']
    expected = settings(model, cfg)
    cfg = optim_wrapper(layer_decay_rate=RATE, **inherited)
    found = settings(model, cfg)
    assert found.keys() == expected.keys()
    assert len({lr for lr, _ in expected.values()}) == 5
    for name, (lr, decay) in expected.items():
        scale = RATE ** (LAYERS - 1 - layer_of(name))
        if name.endswith('dt_projs_bias') and lr == 1.0:  # no custom key
            lr, decay = 2.0, 0.125
        assert found[name] == (lr * scale, decay), name
    assert not any('stages.0' in name for name in found)  # frozen
    assert 'backbone.stages.3.blocks.0.norm1.weight' in found


@pytest.mark.parametrize('others', [1.0, None, RATE])
@pytest.mark.parametrize('stem', [0.3, 0])
def test_stem_lr_mult(stem, others):
    """For layer 0 alone, instead of what the decay makes of it."""
    model = build(classifier('Vim'))
    cfg = optim_wrapper(
        layer_decay_rate=others,
        stem_lr_mult=stem,
        custom_keys={'cls_token': dict(lr_mult=0.5)},
    )
    first = {
        'backbone.stem.conv.weight': stem,
        'backbone.stem.conv.bias': stem,
        'backbone.pos_embed': stem,
        'backbone.cls_token': stem * 0.5,
    }
    found = {name: lr for name, (lr, _) in settings(model, cfg).items()}
    assert {name: found[name] for name in first} == first
    for name in found.keys() - first.keys():
        layer, num_layers = model.get_layer_depth(name)
        assert layer > 0
        assert found[name] == (others or 1.0) ** (num_layers - 1 - layer)


# Every parameter of the families by its last name: kind, in which families.
KINDS = {
    'A_logs': 'scan',
    'Ds': 'scan',
    'fusion_alpha': 'scan',
    'fusion_weight': 'scan',
    'cls_token': 'position',
    'pos_embed': 'position',
    'conv_bias': 'bias of a mixer',
    'dt_projs_bias': 'bias of a mixer',
    'conv_weight': 'weight',
    'dt_projs_weight': 'weight',
    'x_proj_weight': 'weight',
}


def kind_of(model, name):
    """The kind of a parameter: as above, bias, weight or the norm's type."""
    place, _, last = name.rpartition('.')
    module = model.get_submodule(place)
    if 'Norm' in type(module).__name__:
        is_rms = hasattr(module, 'bias') is False or module.bias is None
        return 'RMSNorm' if is_rms else 'norm'
    return KINDS[last] if last in KINDS else last


FAMILIES = [kind for kind in BACKBONES if '.' not in kind]
COMMON = {'weight', 'bias', 'norm', 'scan', 'bias of a mixer'}


@pytest.mark.parametrize(
    ('family', 'kinds'),
    [
        ('VMamba', COMMON),
        ('SpatialMamba', COMMON),
        ('LocalVMamba', COMMON),
        ('FractalMamba', COMMON),
        ('Vim', COMMON - {'norm'} | {'RMSNorm', 'position'}),
        ('LocalVim', COMMON | {'RMSNorm', 'position'}),
    ],
)
def test_kinds(family, kinds):
    """The decay and the rate of every parameter of every family."""
    assert family in FAMILIES
    model = build(classifier(family)).backbone
    holder = nn.Module()
    holder.backbone = model
    cfg = optim_wrapper(
        layer_decay_rate=1.0,
        norm_decay_mult=0.25,
        bias_decay_mult=0.5,
        bias_lr_mult=2.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    )
    found = settings(holder, cfg)
    assert len(found) == len(list(model.parameters()))
    seen = set()
    for name, group in found.items():
        kind = kind_of(holder, name)
        expected = {
            'norm': (1.0, 0.0625),
            'RMSNorm': (1.0, 0.0625),
            'bias': (2.0, 0.125),
            'bias of a mixer': (2.0, 0.125),
            'weight': (1.0, 0.25),
            'scan': (1.0, 0.25),
            'position': (1.0, 0.25),
        }[kind]
        if name.endswith('pos_embed'):
            expected = (1.0, 0.0)
        assert group == expected, (name, kind)
        seen.add(kind)
    assert seen == kinds


def test_pytorchs_rms_norm():
    model = build(classifier())
    model.backbone.stages[0].blocks[0].norm1 = nn.RMSNorm(8)
    cfg = optim_wrapper(layer_decay_rate=1.0, norm_decay_mult=0.0)
    found = settings(model, cfg)
    assert found['backbone.stages.0.blocks.0.norm1.weight'] == (1.0, 0.0)


def test_every_family_is_among_the_kinds():
    assert set(FAMILIES) == {n for n in mmssm.__all__ if n[0].isupper()}


def test_custom_keys_come_first():
    model = nn.Module()
    model.backbone = build(classifier('Vim')).backbone
    cfg = optim_wrapper(
        layer_decay_rate=1.0,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        bias_lr_mult=2.0,
        custom_keys={'layers.1': dict(decay_mult=2.0)},
    )
    for name, group in settings(model, cfg).items():
        if '.layers.1.' in name:
            assert group == (1.0, 0.5), name
        elif kind_of(model, name) == 'bias of a mixer':
            assert group == (2.0, 0.0), name


class Steps(Hook):
    """How far each parameter moves in each step."""

    def __init__(self):
        self.moves = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = {
            n: p.detach().clone() for n, p in runner.model.named_parameters()
        }

    def after_train_iter(self, runner, *args, **kwargs):
        self.moves.append(
            {
                n: (p - self.before[n]).abs().max().item()
                for n, p in runner.model.named_parameters()
            }
        )


@pytest.mark.parametrize(
    ('task', 'cfg'),
    [
        ('classifier', classifier()),
        ('detector', detector()),
        ('segmentor', segmentor()),
        ('change_detector', change_detector()),
    ],
)
def test_training_steps(task, cfg, tmp_path):
    """Adam's first step is as long as the rate; a schedule halves all."""
    steps = Steps()
    runner = ScopedRunner(
        model=copy.deepcopy(cfg),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            dataset=Samples(task),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(
                type='default_collate'
                if task == 'classifier'
                else 'pseudo_collate'
            ),
        ),
        train_cfg=dict(by_epoch=False, max_iters=2),
        optim_wrapper=optim_wrapper(lr=1e-3, decay=0.0, layer_decay_rate=RATE),
        param_scheduler=dict(
            type='MultiStepLR', by_epoch=False, milestones=[1], gamma=0.5
        ),
        custom_hooks=[steps],
        default_scope=SCOPES[task],
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    runner.train()
    assert len(steps.moves) == 2
    for layer in range(LAYERS):
        expected = 1e-3 * RATE ** (LAYERS - 1 - layer)
        names = [n for n in steps.moves[0] if layer_of(n) == layer]
        moved = max(steps.moves[0][name] for name in names)
        assert moved == pytest.approx(expected, rel=0.01), layer
    for group in runner.optim_wrapper.param_groups:
        assert group['lr'] == group['initial_lr'] / 2


def lines_of(model, cfg):
    """What is logged of the layers' rates."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    logger = MMLogger.get_instance('rates', log_level='INFO')
    logger.addHandler(Keep())
    settings(model, cfg)
    (table,) = [r for r in records if r.startswith('LayerDecay')]
    return [line.split() for line in table.splitlines()[1:]]


def test_table():
    model = build(classifier())
    sizes = [0] * LAYERS
    for name, parameter in model.named_parameters():
        sizes[layer_of(name)] += parameter.numel()
    header, *rows = lines_of(model, optim_wrapper(layer_decay_rate=RATE))
    assert header == ['layer', 'factor', 'parameters']
    assert rows == [
        [str(i), f'{RATE ** (LAYERS - 1 - i):.4g}', f'{size:,}']
        for i, size in enumerate(sizes)
    ]


def test_table_joins_layers_of_one_rate():
    model = build(classifier())
    _, *rows = lines_of(model, optim_wrapper(stem_lr_mult=0.1))
    stem = sum(p.numel() for p in model.backbone.stem.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert rows == [
        ['0', '0.1', f'{stem:,}'],
        ['1-6', '1', f'{whole - stem:,}'],
    ]


@pytest.mark.parametrize(
    ('paramwise_cfg', 'message'),
    [
        (
            dict(decay_rate=0.7),
            "unknown key 'decay_rate' in paramwise_cfg; it takes layer_decay_"
            "rate, .*; did you mean 'layer_decay_rate'",
        ),
        (
            dict(layer_decay_rate=0.7, num_layers=12),
            "unknown key 'num_layers'",
        ),
        (dict(), 'must set layer_decay_rate .* or stem_lr_mult'),
        (None, 'must set layer_decay_rate .* or stem_lr_mult'),
        (dict(norm_decay_mult=0.0), 'must set layer_decay_rate'),
        (dict(layer_decay_rate=0), 'above 0 and at most 1, got 0'),
        (dict(layer_decay_rate=7), 'above 0 and at most 1, got 7'),
        (dict(layer_decay_rate='0.7'), "at most 1, got '0.7'"),
        (dict(layer_decay_rate=float('nan')), 'at most 1, got nan'),
        (dict(stem_lr_mult=-1), 'must be a number, 0 or more, got -1'),
        (dict(stem_lr_mult=True), 'must be a number, 0 or more, got True'),
    ],
)
def test_wrong_settings(paramwise_cfg, message):
    optimizer = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    with pytest.raises(ConfigError, match=message) as caught:
        LayerDecayOptimWrapperConstructor(
            dict(optimizer=optimizer), paramwise_cfg
        )
    assert '\n' not in str(caught.value)


def test_optimizer_without_a_rate():
    with pytest.raises(ConfigError, match='optimizer, which sets no lr'):
        LayerDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='AdamW')), dict(layer_decay_rate=0.7)
        )


def test_model_without_a_backbone():
    cfg = optim_wrapper(layer_decay_rate=RATE)
    with pytest.raises(ConfigError, match='but Linear has none; leave'):
        settings(nn.Linear(1, 1), cfg)


def test_backbone_that_does_not_tell_its_layers():
    model = nn.Module()
    model.backbone = build(
        dict(
            type='SwinTransformer',
            embed_dims=8,
            depths=(1, 1, 1, 1),
            num_heads=(1, 1, 1, 1),
        ),
        'mmdet',
    )
    cfg = optim_wrapper(layer_decay_rate=RATE)
    with pytest.raises(ConfigError) as caught:
        settings(model, cfg)
    text = str(caught.value)
    assert '\n' not in text
    assert (
        'backbone mmdet.models.backbones.swin.SwinTransformer has no' in text
    )
    assert "type='mmpretrain.VisionTransformer'" in text
