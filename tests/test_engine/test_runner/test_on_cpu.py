"""What a run on CPUs changes for itself, and leaves as it is in its config."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from mmssm.apis import train
from mmssm.engine import CPUAmpOptimWrapper, ScopedRunner
from mmssm.engine.runner import on_cpu
from mmssm.utils.config import load_config

ROOT = Path(__file__).parents[3]
TOY = ROOT / 'tests' / 'data' / 'toy'


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.mark.parametrize(
    'kind',
    [
        'AmpOptimWrapper',
        'mmengine.AmpOptimWrapper',
        'mmengine.optim.AmpOptimWrapper',
    ],
)
def test_mixed_precision(toy_config, kind, no_gpu, capsys):
    cfg = load_config(toy_config, work_dir='out')
    cfg.optim_wrapper.update(
        type=kind, dtype='bfloat16', loss_scale=512.0, accumulative_counts=2
    )
    runner = ScopedRunner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert type(wrapper) is CPUAmpOptimWrapper
    assert wrapper._accumulative_counts == 2
    assert 'using bfloat16' in capsys.readouterr().err
    dumped = Config.fromfile('out/config.py').optim_wrapper
    assert 'CPU' not in str(dumped.type)
    assert dumped.loss_scale == 512.0 and dumped.dtype == 'bfloat16'


def test_amp_is_dumped_for_gpus(toy_config, no_gpu):
    train(toy_config, work_dir='out', amp=True)
    dumped = Config.fromfile('out/config.py').optim_wrapper
    assert (dumped.type, dumped.loss_scale) == ('AmpOptimWrapper', 'dynamic')


NORMS = ['SyncBN', 'mmengine.SyncBN', 'torch.nn.SyncBatchNorm', 'MMSyncBN']
NORMS += ['mmcv.ops.SyncBatchNorm']
MODEL = dict(type='ToyNormModel')


@pytest.mark.parametrize('kind', NORMS, ids=str)
def test_norms_of_one_process(toy_config, kind, no_gpu):
    cfg = load_config(toy_config, work_dir='out')
    cfg.model = dict(MODEL, norm_cfg=dict(type=kind))
    model = ScopedRunner.from_cfg(cfg).model
    assert 'Sync' not in type(model.norm).__name__
    text = Path('out/config.py').read_text()
    assert 'SyncB' in text and "type='BN'" not in text


class SyncNet(BaseModel):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, inputs):
        return self.norm(inputs)


@pytest.mark.parametrize(
    ('sync_bn', 'norm', 'warned'),
    [
        (None, nn.SyncBatchNorm(2), True),
        ('torch', nn.BatchNorm2d(2), True),
        (None, nn.BatchNorm2d(2), False),
    ],
)
def test_norms_of_several_processes(
    sync_bn, norm, warned, monkeypatch, capsys
):
    """The wrapper itself needs a process group; see test_two_processes."""
    given = []
    monkeypatch.setattr(
        on_cpu,
        'MMDistributedDataParallel',
        lambda model, **settings: given.append(settings) or model,
    )
    cfg = Config(dict(sync_bn=sync_bn, find_unused_parameters=True))
    model = on_cpu.wrap_on_cpu(cfg, SyncNet(norm))
    assert 'Sync' not in type(model.norm).__name__
    assert ('SyncBN runs on GPUs only' in capsys.readouterr().err) == warned
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=[0], static_graph=True
    )
    on_cpu.wrap_on_cpu(cfg, model)
    assert given == [
        dict(broadcast_buffers=False, find_unused_parameters=True),
        dict(static_graph=True),
    ]


def test_two_processes(tmp_path):
    """mmcv's SyncBN, and the wrapper with mmengine's scope before its name."""
    done = subprocess.run(
        [
            *('bash', ROOT / 'tools' / 'dist_train.sh', TOY / 'config.py'),
            *('2', '--work-dir', tmp_path, '--cfg-options'),
            *('model.type=ToyNormModel', 'model.norm_cfg.type=MMSyncBN'),
            'model_wrapper_cfg.type=mmengine.MMDistributedDataParallel',
            *('sync_bn=torch', 'train_cfg.max_epochs=1'),
        ],
        env=dict(
            os.environ,
            PYTHON=sys.executable,
            PYTHONPATH=os.pathsep.join([str(ROOT), str(TOY)]),
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
        ),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('SyncBN runs on GPUs only') == 1
    assert (tmp_path / 'epoch_1.pth').exists()
    dumped = Config.fromfile(tmp_path / 'config.py')
    assert dumped.model.norm_cfg.type == 'MMSyncBN'
    assert dumped.sync_bn == 'torch'
    assert dumped.model_wrapper_cfg == dict(
        type='mmengine.MMDistributedDataParallel'
    )
