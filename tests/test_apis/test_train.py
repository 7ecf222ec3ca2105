import copy

import pytest
import torch
from mmengine.config import Config

from mmssm.apis import train
from mmssm.apis.train import (
    _prepare_amp,
    _scale_lr,
    _use_amp,
    _use_atomic_checkpoints,
)
from mmssm.utils import ConfigError


def test_config_without_training(toy_config):
    with pytest.raises(ConfigError, match='sets no optim_wrapper'):
        train(toy_config, options={'optim_wrapper': None})


def test_amp(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW'))))
    _use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    before = copy.deepcopy(cfg.optim_wrapper)
    _prepare_amp(cfg)
    assert cfg.optim_wrapper == before
    cfg.optim_wrapper.type = 'DeepSpeedOptimWrapper'
    with pytest.raises(ConfigError, match='DeepSpeedOptimWrapper'):
        _use_amp(cfg)


@pytest.mark.parametrize(
    'kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper']
)
def test_mixed_precision_without_a_gpu(kind, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    optimizer = dict(type='AdamW')
    wrapper = dict(type=kind, optimizer=optimizer, loss_scale='dynamic')
    cfg = Config(dict(optim_wrapper=dict(wrapper, dtype='bfloat16')))
    _prepare_amp(cfg)
    assert cfg.optim_wrapper == dict(
        type='CPUAmpOptimWrapper', optimizer=optimizer
    )
    assert 'using bfloat16' in capsys.readouterr().err
    cfg = Config(dict(optim_wrapper=dict(wrapper, dtype='float16')))
    with pytest.raises(ConfigError, match='optim_wrapper.dtype=bfloat16'):
        _prepare_amp(cfg)


def test_scale_lr():
    with pytest.raises(ConfigError, match='base_batch_size'):
        _scale_lr(Config(dict()))
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16)))
    _scale_lr(cfg)
    assert cfg.auto_scale_lr.enable


@pytest.mark.parametrize(
    'before, after',
    [
        (
            dict(type='CheckpointHook', interval=3),
            dict(type='AtomicCheckpointHook', interval=3),
        ),
        (dict(type='MyHook'), dict(type='MyHook')),
    ],
)
def test_checkpoint_hook_is_replaced(before, after):
    cfg = Config(dict(default_hooks=dict(checkpoint=before)))
    _use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == after


def test_default_checkpoint_hook():
    cfg = Config(dict())
    _use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == dict(
        type='AtomicCheckpointHook', interval=1
    )
