import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config

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
    assert 'model_wrapper_cfg' not in cfg
    assert not dist.is_initialized()


def test_cpu(cfg, one_of_one):
    cfg.find_unused_parameters = True
    prepare_launch(cfg, 'pytorch')
    assert dist.get_backend() == 'gloo'
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True,
    )


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


def test_sync_bn_on_the_cpu(cfg, one_of_one, capsys):
    cfg.model.heads = [dict(norm_cfg=dict(type='SyncBN')), dict(type='X')]
    prepare_launch(cfg, 'pytorch')
    assert cfg.model.heads[0].norm_cfg.type == 'BN'
    assert 'SyncBN' in capsys.readouterr().err


def test_own_wrapper_on_the_cpu(cfg, one_of_one):
    cfg.model_wrapper_cfg = dict(find_unused_parameters=True)
    prepare_launch(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert cfg.model_wrapper_cfg.device_ids is None
    cfg.model_wrapper_cfg = dict(type='MMFullyShardedDataParallel')
    with pytest.raises(ConfigError, match='MMFullySharded'):
        prepare_launch(cfg, 'pytorch')


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
