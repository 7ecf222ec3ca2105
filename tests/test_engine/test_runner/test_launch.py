import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import (
    MMDistributedDataParallel,
    MMSeparateDistributedDataParallel,
)

from mmssm.apis import cli
from mmssm.apis.cli import run_tool
from mmssm.engine.runner import launch as distributed
from mmssm.engine.runner.launch import prepare_launch
from mmssm.utils import ConfigError


@pytest.fixture
def cfg():
    return Config(dict(model=dict(type='Net')))


@pytest.fixture
def one_of_one(monkeypatch):
    """The environment of torchrun's only process, on a CPU."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    # It would tie the test runner itself to the process that started it.
    monkeypatch.setattr(distributed, '_end_with_launcher', lambda: None)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '0')
    for name in ('RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')
    for name in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
        monkeypatch.setenv(name, '1')
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_single_process(cfg):
    prepare_launch(cfg, 'none')
    assert cfg.launcher == 'none'
    assert not dist.is_initialized()


def test_cpu(cfg, one_of_one):
    before = cfg.to_dict()
    prepare_launch(cfg, 'pytorch')
    assert dist.get_backend() == 'gloo'
    assert cfg.to_dict() == dict(before, launcher='pytorch')


def test_a_tool_ends_the_group(cfg, one_of_one, monkeypatch):
    waits = []
    monkeypatch.setattr(cli.time, 'sleep', waits.append)
    run_tool(lambda: prepare_launch(cfg, 'pytorch'))
    assert not dist.is_initialized() and waits

    def refuse():
        prepare_launch(cfg, 'pytorch')
        raise ConfigError('no such data')

    with pytest.raises(SystemExit):
        run_tool(refuse)
    assert not dist.is_initialized() and len(waits) == 2


def test_a_tool_that_fails_does_not_wait_for_others(cfg, one_of_one):
    def fail():
        prepare_launch(cfg, 'pytorch')
        raise AssertionError

    with pytest.raises(AssertionError):
        run_tool(fail)
    assert dist.is_initialized()


@pytest.mark.parametrize(
    'kind',
    [
        'MMDistributedDataParallel',
        'mmengine.MMDistributedDataParallel',
        'mmengine.model.MMDistributedDataParallel',
        MMDistributedDataParallel,
    ],
)
def test_wrapper_on_the_cpu(cfg, kind, one_of_one):
    cfg.model_wrapper_cfg = dict(type=kind)
    prepare_launch(cfg, 'pytorch')


@pytest.mark.parametrize(
    'kind', ['MMFullyShardedDataParallel', MMSeparateDistributedDataParallel]
)
def test_wrapper_that_needs_gpus(cfg, kind, one_of_one):
    cfg.model_wrapper_cfg = dict(type=kind)
    with pytest.raises(ConfigError, match='type=MM.*needs GPUs; on CPUs only'):
        prepare_launch(cfg, 'pytorch')


def test_runner_that_needs_gpus(cfg, one_of_one):
    cfg.runner_type = 'FlexibleRunner'
    with pytest.raises(ConfigError, match='runner_type=FlexibleRunner needs'):
        prepare_launch(cfg, 'pytorch')
    prepare_launch(cfg, 'none')


def test_started_by_hand(cfg, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ConfigError, match=r'dist_train\.sh'):
        prepare_launch(cfg, 'pytorch')


def test_slurm_without_gpus(cfg, one_of_one):
    with pytest.raises(ConfigError, match='slurm needs GPUs'):
        prepare_launch(cfg, 'slurm')


def test_more_processes_than_gpus(cfg, one_of_one, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(ConfigError, match='4 processes .* 2 GPU'):
        prepare_launch(cfg, 'pytorch')
