"""The mini sets as the three libraries read them."""

import subprocess
import sys

import numpy as np
import pytest

from mmssm.datasets import (
    LoadChangeLabel,
    LoadImagePair,
    MiniADE20KDataset,
    MiniChangeDataset,
    MiniCocoDataset,
    MiniImageNetDataset,
)
from mmssm.datasets.mini import WRITERS


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('mini')


def test_detection(root):
    dataset = MiniCocoDataset(
        data_root=str(root / 'coco'),
        ann_file='annotations/test.json',
        data_prefix=dict(img='test/'),
        test_mode=True,
        pipeline=[],
    )
    assert len(dataset) == 150
    assert dataset.metainfo['classes'] == tuple('0123456789')
    assert all(len(sample['instances']) > 0 for sample in dataset)


def test_segmentation(root):
    from mmseg.datasets.transforms import LoadAnnotations

    dataset = MiniADE20KDataset(
        data_root=str(root / 'ade20k'),
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=[],
    )
    assert len(dataset) == 150
    classes, palette = (dataset.metainfo[k] for k in ('classes', 'palette'))
    assert classes == ('ground', *'0123456789')
    assert len(palette) == len(classes)
    seen = set()
    for sample in dataset:
        labels = LoadAnnotations()(dict(sample))['gt_seg_map']
        seen |= set(np.unique(labels).tolist())
    assert seen == set(range(11))  # nothing is ignored: no 255


@pytest.mark.parametrize(('prefix', 'count'), [('train', 4245), ('val', 382)])
def test_classification(root, prefix, count):
    dataset = MiniImageNetDataset(
        data_root=str(root / 'imagenet'), data_prefix=prefix
    )
    assert len(dataset) == count
    assert dataset.CLASSES == tuple('0123456789')
    for sample in dataset.load_data_list():
        folder = sample['img_path'].split('/')[-2]
        assert dataset.CLASSES[sample['gt_label']] == folder


def test_change_detection(root):
    dataset = MiniChangeDataset(
        data_root=str(root / 'levir_cd_plus'),
        data_prefix=dict(
            img_path='test/A',
            img_path_after='test/B',
            seg_map_path='test/label',
        ),
        pipeline=[LoadImagePair(), LoadChangeLabel()],
    )
    assert len(dataset) == 80
    assert len(list((root / 'levir_cd_plus/train/A').iterdir())) == 320
    assert dataset.metainfo['classes'] == ('unchanged', 'changed')
    seen = set()
    for sample in dataset:
        assert sample['img'].shape == (96, 96, 6)
        seen |= set(np.unique(sample['gt_seg_map']).tolist())
    assert seen == {0, 1}


def mini(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmssm.datasets.mini', *arguments],
        capture_output=True,
        text=True,
    )


def test_command_builds_what_is_named(root):
    done = mini('imagenet', '--root', str(root))
    assert done.returncode == 0, done.stderr
    assert f'{root / "imagenet"} is ready' in done.stdout
    done = mini('cityscapes', '--root', str(root))
    assert done.returncode == 2
    assert f'choose from {", ".join(WRITERS)}' in done.stderr


def test_nobody_looks_for_their_files_before_they_are_built():
    sets = MiniCocoDataset, MiniADE20KDataset, MiniImageNetDataset
    assert all(kind.builds_its_files for kind in (*sets, MiniChangeDataset))
