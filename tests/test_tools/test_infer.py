"""tools/infer.py as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = """
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VMamba',
        arch=dict(
            embed_dims=16, depths=(1, 1, 1, 1), d_state=1, ssm_ratio=1.0,
            mlp_ratio=1.0, stem='conv', downsample='conv', gate=False,
            conv_bias=False, mixer='ss2d', drop_path_rate=0.0,
            ssm_init='s4d', act='SiLU')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=128, num_classes=2))
test_dataloader = dict(
    dataset=dict(
        type='CustomDataset',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
"""


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / 'tools' / 'infer.py'), *arguments],
            env=dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def classifier(tmp_path):
    """Arguments: a config and its checkpoint, sure that all is a fox."""
    (tmp_path / 'tiny.py').write_text(CONFIG)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(tmp_path / 'tiny.py').model)
    model.head.fc.bias.data.copy_(torch.tensor([-50.0, 50.0]))
    meta = dict(dataset_meta=dict(classes=('hen', 'fox')))
    content = dict(meta=meta, state_dict=model.state_dict())
    torch.save(content, tmp_path / 'tiny.pth')
    return 'tiny.py', 'tiny.pth'


def test_skipped_images_and_exit_status(run, classifier, tmp_path):
    folder = tmp_path / 'my photos'
    folder.mkdir()
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / 'good.png')

    good = run('my photos', *classifier)
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[-1] == (
        '1 image done, 0 skipped; results in outputs/tiny'
    )
    record = json.loads(
        (tmp_path / 'outputs/tiny/preds/good.json').read_text()
    )
    assert record['image'] == 'my photos/good.png'
    assert record['classes'][0] == dict(label=1, name='fox', score=1.0)

    Image.new('RGB', (1, 1)).save(folder / 'dot.png')
    (folder / 'empty.jpg').touch()
    some = run('my photos', *classifier, '--out-dir', 'some')
    assert some.returncode == 1
    assert some.stderr.splitlines()[-1] == (
        'skipped my photos/empty.jpg: the file is empty (0 bytes)'
    )
    assert some.stderr.splitlines()[-2].startswith(
        'skipped my photos/dot.png: the model cannot take '
    )
    assert '1 image done, 2 skipped' in some.stdout
    assert (tmp_path / 'some' / 'vis' / 'good.png').is_file()


def test_errors_are_one_line(run, classifier):
    failed = run('nothing.jpg', *classifier)
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == [
        'infer.py: error: nothing.jpg does not exist; give an image or a '
        'folder'
    ]


def test_later_images_are_passed_on(run, classifier, tmp_path):
    for name in ('a.png', 'b.png'):
        Image.new('RGB', (9, 9)).save(tmp_path / name)
    failed = run('a.png', *classifier, '--after', 'b.png')
    assert failed.returncode == 2
    assert failed.stderr.startswith(
        'infer.py: error: --after b.png is for pairs, but config tiny.py '
    )
    assert failed.stderr.count('\n') == 1
