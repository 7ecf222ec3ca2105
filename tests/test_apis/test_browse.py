import numpy as np
import pytest
from drawn_shapes import (
    NAMES,
    write_class_folders,
    write_coco_set,
    write_image,
    write_label_maps,
)
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmssm.apis.browse import browse_dataset
from mmssm.utils import ConfigError, UserError
from mmssm.visualization.sheets import GAP, TILE, TITLE_HEIGHT
from mmssm.visualization.task_sheets import change_sheet


@pytest.fixture
def write_config(tmp_path, monkeypatch):
    """Write a config of one dataset, under a split's name."""
    monkeypatch.chdir(tmp_path)

    def write(scope, split='train', **dataset):
        cfg = dict(default_scope=scope, custom_imports=dict(imports=['mmssm']))
        cfg[f'{split}_dataloader'] = dict(dataset=dataset)
        Config(cfg).dump('config.py')
        return 'config.py'

    return write


def detection(split='train', **changes):
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    return dict(
        type='CocoDataset',
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=NAMES),
        pipeline=[
            dict(type='LoadImageFromFile'),
            load,
            dict(type='PackDetInputs'),
        ],
    ) | dict(changes)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_detection(write_config, tmp_path, split):
    write_coco_set(tmp_path, split, 5, 0)
    config = write_config('mmdet', split, **detection(split))
    text = browse_dataset(config, 'sheet.png', split, 3)
    counts = dict(part.split(': ') for part in text.split('; ')[1].split(', '))
    assert text.startswith('5 images; ')
    assert list(counts) == list(NAMES)
    written = (tmp_path / 'annotations' / f'{split}.json').read_text()
    assert sum(map(int, counts.values())) == written.count('"bbox"')
    sheet = Image.open('sheet.png')
    assert sheet.size == (
        3 * (TILE + 3 * GAP) - GAP,
        TITLE_HEIGHT + TILE + GAP,
    )


def test_images_without_objects_are_drawn(write_config, tmp_path):
    write_coco_set(tmp_path, 'val', 4, 0)
    config = write_config('mmdet', **detection('val', indices=[3]))
    assert browse_dataset(config, 'sheet.png') == '1 image'


def test_classification_in_the_images_colors(write_config, tmp_path):
    write_class_folders(tmp_path, 'train', 2, 0)
    for path in (tmp_path / 'train' / NAMES[0]).iterdir():
        write_image(path, np.full((8, 8, 3), (0, 0, 255), np.uint8))  # red
    config = write_config(
        'mmpretrain',
        type='CustomDataset',
        data_prefix='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    text = browse_dataset(config, 'sheet.png', num=1)
    assert text == '6 images; ball: 2, box: 2, star: 2'
    sheet = np.asarray(Image.open('sheet.png'))
    pixel = sheet[TITLE_HEIGHT + 100, 100].astype(int)
    assert abs(pixel - (255, 0, 0)).max() < 5  # as JPEG keeps it


def test_segmentation(write_config, tmp_path):
    write_label_maps(tmp_path, 'val', 2, 0)
    config = write_config(
        'mmseg',
        'test',
        type='BaseSegDataset',
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        metainfo=dict(classes=('ground', *NAMES)),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    assert browse_dataset(config, 'sheet.jpg', 'test') == '2 images'
    assert Image.open('sheet.jpg').height > TITLE_HEIGHT + TILE  # a legend


def test_change_detection_without_prediction():
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=np.eye(8, dtype=np.uint8)[None])
    )
    sample.gt_sem_seg = sample.gt_sem_seg.to_tensor()
    pair = np.zeros((8, 8, 6), np.uint8)
    sheet = change_sheet([(pair, sample)], with_prediction=False)
    assert sheet.width == 3 * (TILE + GAP) + GAP
    colors = {color for _, color in sheet.getcolors(2**20)}
    assert (255, 255, 255) in colors
    assert (230, 50, 40) not in colors  # false alarms in the legend


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num=0), '--num 0: at least 1'),
        (dict(out='sheet.gif'), 'name it .png or .jpg'),
        (dict(split='test'), 'sets no test_dataloader'),
        (
            dict(options={'train_dataloader.dataset.indices': 0}),
            'CocoDataset finds no image',
        ),
        (
            dict(options={'train_dataloader.dataset.pipeline': []}),
            'end it with PackDetInputs',
        ),
        (
            dict(options={'train_dataloader.dataset.ann_file': 'x.json'}),
            'data not found: x.json',
        ),
    ],
    ids=str,
)
def test_errors(write_config, tmp_path, options, message):
    write_coco_set(tmp_path, 'train', 2, 0)
    config = write_config('mmdet', **detection())
    with pytest.raises((UserError, ConfigError), match=message):
        browse_dataset(config, **{'out': 'sheet.png', **options})
    assert not (tmp_path / 'sheet.png').exists()


def test_no_annotations_in_the_pipeline(write_config, tmp_path):
    write_coco_set(tmp_path, 'train', 2, 0)
    dataset = detection()
    del dataset['pipeline'][1]
    with pytest.raises(ConfigError, match='no gt_instances .*LoadAnnotations'):
        browse_dataset(write_config('mmdet', **dataset), 'sheet.png')
