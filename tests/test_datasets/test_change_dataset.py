"""Pairs and tiles of small trees in the datasets' forms."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader

from mmssm.datasets import (
    ChangeDataset,
    LoadChangeLabel,
    LoadImagePair,
)

BASES = Path(__file__).parents[2] / 'configs' / '_base_'
CONFIG = BASES / 'levir-cd-plus_256x256.py'
FOLDERS = ('img_path', 'img_path_after', 'seg_map_path')
PREFIX = dict(
    img_path='train/A', img_path_after='train/B', seg_map_path='train/label'
)
NAMES = ('train_1', 'train_10', 'train_2')


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_pair(root, split, name, height, width):
    rng = np.random.default_rng(len(name) + height)
    for folder in 'AB':
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        write(root / split / folder / f'{name}.png', image)
    label = 255 * rng.integers(0, 2, (height, width), np.uint8)
    write(root / split / 'label' / f'{name}.png', label)


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        write_pair(tmp_path, 'train', name, 64, 96)
    return tmp_path


def build(root, **kwargs):
    # Serializing spends a second on the garbage collector.
    kwargs = dict(serialize_data=False, data_prefix=PREFIX) | kwargs
    return ChangeDataset(data_root=str(root), **kwargs)


def test_pairs_have_three_files_of_one_name(root):
    dataset = build(root)
    assert len(dataset) == 3
    for name, sample in zip(NAMES, dataset):
        for key, folder in PREFIX.items():
            assert sample[key] == str(root / folder / f'{name}.png')
        assert 'tile' not in sample
    assert dataset.metainfo['classes'] == ('unchanged', 'changed')
    assert len(dataset.metainfo['palette']) == 2


def test_names_can_be_listed(root):
    (root / 'some.txt').write_text('train_2\n\ntrain_1\n')
    dataset = build(root, ann_file='some.txt')
    names = [Path(sample['img_path']).stem for sample in dataset]
    assert names == ['train_1', 'train_2']
    (root / 'some.txt').write_text('train_3')
    with pytest.raises(ValueError, match=r'train/A/train_3 is missing'):
        build(root, ann_file='some.txt')
    (root / 'some.txt').write_text('\n')
    with pytest.raises(ValueError, match=r'some\.txt lists no pair'):
        build(root, ann_file='some.txt')


@pytest.mark.parametrize(
    ('side', 'rows', 'columns'),
    [
        (32, [0, 32], [0, 32, 64]),
        (64, [0], [0, 32]),  # the last tile ends with the image
        (40, [0, 24], [0, 40, 56]),
    ],
)
def test_tiles_cover_each_pair(root, side, rows, columns):
    dataset = build(root, tile_size=side)
    tiles = [(row, column, side, side) for row in rows for column in columns]
    assert [sample['tile'] for sample in dataset] == 3 * tiles
    pipeline = [LoadImagePair(), LoadChangeLabel()]
    whole, cut = (
        build(root, pipeline=pipeline),
        build(root, tile_size=side, pipeline=pipeline),
    )
    for number in range(3):
        pair = whole[number]
        joined = np.full_like(pair['img'], 77)
        labels = np.full_like(pair['gt_seg_map'], 77)
        for index in range(len(tiles)):
            sample = cut[number * len(tiles) + index]
            assert sample['seg_map_path'] == pair['seg_map_path']
            assert sample['img'].shape == (side, side, 6)
            assert sample['ori_shape'] == sample['img_shape'] == (side, side)
            row, column, *_ = sample['tile']
            window = np.s_[row : row + side, column : column + side]
            joined[window] = sample['img']
            labels[window] = sample['gt_seg_map']
        assert np.array_equal(joined, pair['img'])
        assert np.array_equal(labels, pair['gt_seg_map'])


def test_full_size_pair_gives_16_tiles(tmp_path):
    write_pair(tmp_path, 'train', 'a', 1024, 1024)
    dataset = build(tmp_path, tile_size=256)
    assert len(dataset) == 16
    tiles = {sample['tile'][:2] for sample in dataset}
    assert tiles == {(256 * i, 256 * j) for i in range(4) for j in range(4)}


@pytest.mark.parametrize('folder', ['A', 'B', 'label'])
def test_missing_partner_is_named(root, folder):
    (root / 'train' / folder / 'train_10.png').unlink()
    missing = f'{root}/train/{folder}/train_10.png is missing: a pair is '
    with pytest.raises(ValueError) as caught:
        build(root)
    assert str(caught.value).startswith(missing)
    assert '\n' not in str(caught.value)


def test_missing_partners_are_counted(root):
    for path in (root / 'train' / 'B').iterdir():
        path.unlink()
    with pytest.raises(ValueError) as caught:
        build(root)
    first = f'{root}/train/B/train_1.png is missing, and 2 more files: '
    assert str(caught.value).startswith(first)


@pytest.mark.parametrize('suffix', ['.PNG', '.tif', '.jpeg'])
@pytest.mark.parametrize('folder', ['A', 'label'])
def test_files_of_any_format_are_found(root, suffix, folder):
    path = root / 'train' / folder / 'train_10.png'
    other = path.rename(path.with_suffix(suffix))
    # What is no image, or hidden, may lie there.
    (path.parent / 'notes.txt').touch()
    (path.parent / '._train_1.PNG').touch()
    files = {file for pair in build(root) for file in pair.values()}
    assert len(build(root)) == 3 and str(other) in files


def test_tiff_pairs_are_loaded(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 40, 50, 3), np.uint8)
    label = np.where(rng.random((40, 50)) < 0.5, 255, 0).astype(np.uint8)
    for folder, image in zip(('A', 'B', 'label'), (*images, label)):
        write(tmp_path / 'train' / folder / '1.tif', image)
    pipeline = [LoadImagePair(), LoadChangeLabel()]
    dataset = build(tmp_path, pipeline=pipeline, tile_size=40)
    assert [s['tile'] for s in dataset] == [(0, 0, 40, 40), (0, 10, 40, 40)]
    first = dataset[1]
    pair = np.concatenate(images[..., ::-1], -1)
    assert np.array_equal(first['img'], pair[:, 10:])
    assert np.array_equal(first['gt_seg_map'], label[:, 10:] // 255)


@pytest.mark.parametrize(
    'folder, option', [('A', 'img_suffix'), ('label', 'seg_map_suffix')]
)
def test_two_files_of_one_name(root, folder, option):
    path = root / 'train' / folder / 'train_10.tif'
    path.write_bytes(path.with_suffix('.png').read_bytes())
    with pytest.raises(ValueError) as caught:
        build(root)
    assert str(caught.value) == (
        f'{root}/train/{folder} has train_10.png and train_10.tif of one '
        f'name; move one of them away, or choose with {option}'
    )
    assert len(build(root, **{option: '.png'})) == 3
    with pytest.raises(ValueError, match='train_1.png is missing, and '):
        build(root, **{option: '.tif'})


def test_layout_of_changemamba(tmp_path):
    """Its lists have the suffix; names may have dots."""
    folders = dict(
        img_path='train/T1', img_path_after='train/T2', seg_map_path='train/GT'
    )
    for folder in folders.values():
        for name in ('1.5', '2', '3'):
            write(tmp_path / folder / f'{name}.png', np.zeros((8, 8), 'u1'))
    (tmp_path / 'train_set.txt').write_text('1.5.png\n3\n')
    dataset = build(tmp_path, data_prefix=folders, ann_file='train_set.txt')
    names = [Path(sample['seg_map_path']).name for sample in dataset]
    assert names == ['1.5.png', '3.png']


def test_first_name_still_works(root):
    old = dict(data_root=str(root), data_prefix=PREFIX, lazy_init=True)
    for name in ('LEVIRCDPlusDataset', 'mmssm.datasets.LEVIRCDPlusDataset'):
        assert type(DATASETS.build(dict(old, type=name))) is ChangeDataset


def test_folder_must_exist_and_hold_images(root, tmp_path):
    with pytest.raises(ValueError, match=r'folder .*/test/A does not exist'):
        build(root, data_prefix=dict(PREFIX, img_path='test/A'))
    for path in root.glob('train/*/*'):
        path.unlink()
    message = r'no pair in .*train/A: no name there ends in one of .png, .jpg'
    with pytest.raises(ValueError, match=message):
        build(root)


def test_tile_larger_than_the_pair_is_refused(root):
    with pytest.raises(ValueError) as caught:
        build(root, tile_size=65)
    message = f'{root}/train/A/train_1.png has 64 x 96 pixels, less than'
    assert str(caught.value).startswith(message)
    (root / 'train/A/train_1.png').write_text('no image')
    with pytest.raises(ValueError, match=r'train_1\.png is no image'):
        build(root, tile_size=32)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(tile_size=0), 'tile_size must be a whole number'),
        (dict(reduce_zero_label=True), 'reduce_zero_label'),
        (dict(metainfo=dict(classes=('changed',))), 'metainfo.classes'),
        (
            dict(data_prefix=dict(img_path='train/A', seg_map_path='b')),
            'data_prefix has img_path, seg_map_path, but pairs need',
        ),
    ],
)
def test_wrong_argument_is_refused(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(root, **arguments)


@pytest.fixture
def config(tmp_path):
    cfg = Config.fromfile(CONFIG)
    for split, name in (('train', 'train_0'), ('test', 'test_0')):
        write_pair(tmp_path, split, name, 512, 512)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield cfg


def test_config_gives_tiles_to_train_and_pairs_to_test(config):
    train = DATASETS.build(config.train_dataloader.dataset)
    batch = next(
        iter(DataLoader(train, 4, num_workers=2, collate_fn=pseudo_collate))
    )
    assert len(train) == 4
    assert [x.shape for x in batch['inputs']] == 4 * [(6, 256, 256)]
    for sample in batch['data_samples']:
        assert sample.gt_sem_seg.shape == (256, 256)
        assert set(sample.gt_sem_seg.data.unique().tolist()) == {0, 1}
    (sample,) = DATASETS.build(config.test_dataloader.dataset)
    assert sample['inputs'].shape == (6, 512, 512)
    meta = sample['data_samples'].metainfo
    assert meta['img_path'].endswith('test/A/test_0.png')
    assert meta['img_path_after'].endswith('test/B/test_0.png')
    assert meta['ori_shape'] == (512, 512)


def test_config_turns_and_mirrors_tiles_equally_often(config):
    dataset = dict(config.train_dataloader.dataset)
    dataset['pipeline'] = config.train_pipeline[:2]
    still = DATASETS.build(dataset)[0]
    move = Compose(config.train_pipeline[2:-1])
    turned = [
        np.rot90(view, turns)
        for view in (still['gt_seg_map'], still['gt_seg_map'][:, ::-1])
        for turns in range(4)
    ]
    np.random.seed(0)
    counts = np.zeros(8)
    for _ in range(160):
        moved = move(dict(still))['gt_seg_map']
        same = [np.array_equal(moved, label) for label in turned]
        assert sum(same) == 1
        counts += same
    assert counts.min() >= 8 and counts.max() <= 34


def test_config_augments_in_testing(config):
    dataset = dict(config.test_dataloader.dataset)
    (plain,) = DATASETS.build(dict(dataset))
    dataset['pipeline'] = config.tta_pipeline
    (views,) = DATASETS.build(dataset)
    inputs = plain['inputs']
    expected = [inputs, inputs.flip(2), inputs.flip(1)]
    assert len(views['inputs']) == 3
    for view, image in zip(views['inputs'], expected):
        assert view.equal(image)
    directions = [
        sample.metainfo['flip_direction'] for sample in views['data_samples']
    ]
    assert directions == [None, 'horizontal', 'vertical']
    truth = plain['data_samples'].gt_sem_seg.data
    for sample in views['data_samples']:
        assert sample.gt_sem_seg.data.equal(truth)


@pytest.mark.parametrize(
    'name, root, folders, tile_size',
    [
        ('levir-cd-plus', 'LEVIR-CD+', ('A', 'B', 'label'), 256),
        ('sysu-cd', 'SYSU-CD', ('time1', 'time2', 'label'), None),
        ('whu-cd', 'WHU-CD', ('T1', 'T2', 'GT'), 256),
    ],
)
def test_config_reads_the_datasets_folders(name, root, folders, tile_size):
    cfg = Config.fromfile(BASES / f'{name}_256x256.py')
    for split in ('train', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.type == 'mmssm.datasets.ChangeDataset'
        assert dataset.data_root == f'data/{root}'
        assert [dataset.data_prefix[key] for key in FOLDERS] == [
            f'{split}/{folder}' for folder in folders
        ]
    assert cfg.train_dataloader.dataset.tile_size == tile_size
    assert cfg.val_dataloader == cfg.test_dataloader
