import pytest
import torch
from mmengine.config import Config

from mmssm.apis import train
from mmssm.apis.train import (
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
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match='needs a GPU'):
        _use_amp(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    _use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg.optim_wrapper.type = 'DeepSpeedOptimWrapper'
    with pytest.raises(ConfigError, match='DeepSpeedOptimWrapper'):
        _use_amp(cfg)


def test_mixed_precision_of_a_config_needs_a_gpu(toy_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match='optim_wrapper.type=OptimWrapper'):
        train(toy_config, options={'optim_wrapper.type': 'AmpOptimWrapper'})


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
