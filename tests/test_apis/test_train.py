import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmssm.apis import train
from mmssm.apis.train import _scale_lr, _use_amp, _use_atomic_checkpoints
from mmssm.utils import ConfigError


def test_config_without_training(toy_config):
    with pytest.raises(ConfigError, match='sets no optim_wrapper'):
        train(toy_config, options={'optim_wrapper': None})


def test_work_directory_that_cannot_be_made(toy_config, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='choose another --work-dir'):
        train(toy_config, work_dir=str(tmp_path / 'file' / 'out'))


@pytest.mark.parametrize(
    'kind',
    [
        None,
        'OptimWrapper',
        'mmengine.OptimWrapper',
        'mmengine.optim.OptimWrapper',
        OptimWrapper,
        AmpOptimWrapper,
    ],
)
def test_amp(kind):
    wrapper = dict(type=kind) if kind else {}
    cfg = Config(dict(optim_wrapper=wrapper))
    _use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_with_another_wrapper():
    cfg = Config(dict(optim_wrapper=dict(type='DeepSpeedOptimWrapper')))
    with pytest.raises(ConfigError, match='uses DeepSpeedOptimWrapper; set'):
        _use_amp(cfg)


def test_scale_lr():
    with pytest.raises(ConfigError, match='base_batch_size'):
        _scale_lr(Config(dict()))
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16)))
    _scale_lr(cfg)
    assert cfg.auto_scale_lr.enable


class MyCheckpointHook(CheckpointHook):
    pass


MyCheckpointHook.__name__ = 'CheckpointHook'


@pytest.mark.parametrize(
    ('kind', 'replaced'),
    [
        ('CheckpointHook', True),
        ('mmengine.CheckpointHook', True),
        ('mmdet.CheckpointHook', True),
        ('mmengine.hooks.CheckpointHook', True),
        (CheckpointHook, True),
        ('MyHook', False),
        (MyCheckpointHook, False),
    ],
)
@pytest.mark.parametrize('among', ['default_hooks', 'custom_hooks'])
def test_checkpoint_hook_is_replaced(kind, replaced, among):
    hook = dict(type=kind, interval=3)
    hooks = dict(checkpoint=hook) if among == 'default_hooks' else [hook]
    cfg = Config({among: hooks})
    _use_atomic_checkpoints(cfg)
    hook = cfg[among]['checkpoint' if among == 'default_hooks' else 0]
    after = 'AtomicCheckpointHook' if replaced else kind
    assert hook == dict(type=after, interval=3)


def test_no_checkpoint_hook():
    cfg = Config(dict(default_hooks=dict(checkpoint=None)))
    _use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint is None


def test_default_checkpoint_hook():
    cfg = Config(dict())
    _use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == dict(
        type='AtomicCheckpointHook', interval=1
    )
