"""tools/analysis_tools/eval_resolutions.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'eval_resolutions.py'
LAUNCHER = [ROOT / 'tools/torchrun.py', '--standalone', '--nproc_per_node=2']


@pytest.fixture
def run(tmp_path):
    def run(*arguments, launcher=()):
        command = [sys.executable, *launcher, TOOL, *arguments]
        return subprocess.run(
            list(map(str, command)),
            env=dict(
                os.environ,
                PYTHONPATH=str(ROOT),
                OMP_NUM_THREADS='1',
                CUDA_VISIBLE_DEVICES='',
            ),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def resnet(tmp_path):
    """A small ResNet that takes all of five images for ``b``, and its config.

    Three of them are.
    """
    for name in ('a/0', 'a/1', 'b/2', 'b/3', 'b/4'):
        path = tmp_path / 'data' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (50, 40)).save(path)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=36),
        dict(type='CenterCrop', crop_size=32),
        dict(type='PackInputs'),
    ]
    data = str(tmp_path / 'data')
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='ResNet', depth=18, stem_channels=8, base_channels=8
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=2, in_channels=64),
            ),
            test_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    type='CustomDataset', data_root=data, pipeline=pipeline
                ),
            ),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy', topk=(1, 2)),
        )
    )
    cfg.dump(tmp_path / 'my resnet.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.head.fc.weight.data.zero_()
    model.head.fc.bias.data.copy_(torch.tensor([0.0, 1.0]))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    return 'my resnet.py', 'model.pth'


def test_two_processes(run, resnet, tmp_path):
    done = run(
        *resnet,
        *('--sizes', '64', '32', '--launcher', 'pytorch'),
        launcher=LAUNCHER,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('[1/2] 32 x 32, 4 images per batch') == 1
    assert done.stdout.count('[2/2] 64 x 64, 1 images per batch') == 1
    assert done.stdout.endswith(
        '  size    top-1    top-5   images per batch\n'
        '    32    60.00        -                  4\n'
        '    64    60.00        -                  1\n'
        'work_dirs/my resnet/resolutions.png\n'
    )
    with Image.open(tmp_path / 'work_dirs/my resnet/resolutions.png') as drawn:
        assert drawn.size == (825, 600)


def test_loading_processes_end_with_their_size(run, resnet):
    done = run(
        *(*resnet, '--sizes', '32', '40', '48'),
        *('--cfg-options', 'test_dataloader.num_workers=2'),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr


def test_options(run, resnet, tmp_path):
    done = run(
        *resnet,
        *('--sizes', '48', '--out', 'drawn.svg', '--work-dir', 'work'),
        *('--cfg-options', 'test_dataloader.batch_size=9'),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '[1/1] 48 x 48, 4 images per batch' in done.stdout
    assert done.stdout.endswith('\ndrawn.svg\n')
    drawn = (tmp_path / 'drawn.svg').read_text()
    for text in ('my resnet', "the config's size (32 px)", '48', '60.0'):
        assert f'<!-- {text} -->' in drawn
    assert (tmp_path / 'work' / 'test_results.json').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--sizes', '48', '0'], '--sizes: got 0; give whole numbers of '),
        (['--sizes', '48', '--out', 'x.txt'], 'cannot write x.txt: its suff'),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    done = run('none.py', 'none.pth', *arguments)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if 'error' in x]
    assert line.startswith(f'eval_resolutions.py: error: {message}')
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.iterdir())
