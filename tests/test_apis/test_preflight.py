import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from mmssm.apis.preflight import check_data, check_weights
from mmssm.utils import ConfigError

ROOT = Path(__file__).parents[2]


class CocoDataset(Dataset):
    """Stands for mmdet's, which takes long to import."""

    def __init__(self, **kwargs):
        pass


class SelfDownloading(Dataset):
    def __init__(self, data_root='', download=True):
        pass


@pytest.fixture(autouse=True)
def registered():
    for kind in (CocoDataset, SelfDownloading):
        DATASETS.register_module(module=kind)
    yield
    for kind in (CocoDataset, SelfDownloading):
        DATASETS.module_dict.pop(kind.__name__)


@pytest.fixture
def coco(tmp_path):
    """A complete config and its data."""
    for name in ('train2017', 'annotations'):
        (tmp_path / name).mkdir()
    (tmp_path / 'annotations' / 'train.json').write_text('{}')
    return Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(tmp_path),
                    ann_file='annotations/train.json',
                    data_prefix=dict(img='train2017/'),
                )
            )
        )
    )


def message(cfg, split='train'):
    with pytest.raises(ConfigError) as caught:
        check_data(cfg, split)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_complete(coco):
    check_data(coco, 'train', 'val', 'test')


def test_folder_missing(coco):
    coco.train_dataloader.dataset.data_root = 'no/such/folder'
    text = message(coco)
    assert 'no/such/folder' in text and 'train2017/' in text
    coco.train_dataloader.dataset.metainfo = dict(classes=('my own',))
    assert 'train2017/' not in message(coco)
    coco.train_dataloader.dataset.pop('metainfo')
    assert '--cfg-options train_dataloader.dataset.data_root=' in text


@pytest.mark.parametrize('split', ['train', 'test'])
def test_layout_of_change_detection(split, tmp_path):
    path = 'configs/vmamba/changemamba_vmamba-tiny-s1l8_levir-cd-plus.py'
    cfg = Config.fromfile(ROOT / path)
    dataset = cfg[f'{split}_dataloader'].dataset
    dataset.data_root = str(tmp_path)
    for folder in ('A', 'label'):
        (tmp_path / split / folder).mkdir(parents=True)
    text = message(cfg, split)
    assert f'not found: {tmp_path}/{split}/B ' in text
    assert '{train,test}/{A,B,label} of LEVIR-CD+' in text
    page = re.search(r'docs/\w+\.md', text)[0]
    assert 'LEVIR-CD+/{train,test}/{A,B,label}' in (ROOT / page).read_text()
    (tmp_path / split / 'B').mkdir()
    check_data(cfg, split)


def test_annotations_missing(coco, tmp_path):
    (tmp_path / 'annotations' / 'train.json').unlink()
    text = message(coco)
    assert str(tmp_path / 'annotations/train.json') in text
    assert 'dataset.ann_file' in text


def test_images_missing(coco, tmp_path):
    (tmp_path / 'train2017').rmdir()
    assert 'dataset.data_prefix.img' in message(coco)


def test_inside_wrappers(coco):
    dataset = coco.train_dataloader.dataset
    broken = dict(dataset, data_root='nowhere')
    coco.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ConcatDataset', datasets=[dict(dataset), broken]),
    )
    assert 'dataset.dataset.datasets.1.data_root=' in message(coco)


@pytest.mark.parametrize(
    'change',
    [
        dict(type='SelfDownloading'),
        dict(data_root='s3://bucket/coco/'),
        dict(backend_args=dict(backend='petrel')),
    ],
)
def test_data_that_are_not_ours_to_check(coco, change):
    coco.train_dataloader.dataset.update(data_root='nowhere')
    coco.train_dataloader.dataset.update(change)
    check_data(coco, 'train')


def test_mini_set_builds_itself(coco, monkeypatch):
    monkeypatch.setattr(CocoDataset, 'builds_its_files', True, raising=False)
    coco.train_dataloader.dataset.data_root = 'data/mini/not built yet'
    coco.train_evaluator = dict(type='CocoMetric', ann_file='not built yet')
    check_data(coco, 'train')


def test_annotations_of_a_metric(coco):
    coco.val_dataloader = coco.train_dataloader
    coco.val_evaluator = dict(type='CocoMetric', ann_file='nowhere.json')
    text = message(coco, 'val')
    assert 'nowhere.json' in text and 'val_evaluator.ann_file=' in text


@pytest.mark.parametrize('place', ['val_evaluator.0', 'val_evaluator.metrics'])
def test_annotations_of_one_of_several_metrics(coco, place):
    coco.val_dataloader = coco.train_dataloader
    metrics = [dict(type='CocoMetric', ann_file='nowhere.json')]
    if place.endswith('metrics'):
        place += '.0'
        metrics = dict(type='MultiDatasetsEvaluator', metrics=metrics)
    coco.val_evaluator = metrics
    assert f'{place}.ann_file=' in message(coco, 'val')


def pretrained(checkpoint, filename=None):
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    cfg = dict(model=dict(backbone=dict(init_cfg=init_cfg)))
    return Config(cfg, cfg_text='given', filename=filename)


def test_missing_weights_name_the_file_and_its_source(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('About another file.')
    cfg = pretrained('no/where.pth', tmp_path / 'config.py')
    with pytest.raises(ConfigError, match='not found: no/where.pth') as error:
        check_weights(cfg)
    assert 'README' not in str(error.value)
    assert '.init_cfg.checkpoint=' in str(error.value)
    readme.write_text('Put it into `no/where.pth`.')
    with pytest.raises(ConfigError, match=f'{readme} tells where to get it'):
        check_weights(cfg)
    init_cfg = dict(cfg.model.backbone.init_cfg)
    cfg.model.backbone.init_cfg = [dict(type='Constant'), init_cfg]
    with pytest.raises(ConfigError, match='init_cfg.1.checkpoint='):
        check_weights(cfg)


@pytest.mark.parametrize(
    'kind',
    [PretrainedInit, 'mmengine.Pretrained', 'mmengine.model.PretrainedInit'],
)
def test_missing_weights_however_they_are_named(kind):
    cfg = pretrained('no/where.pth')
    cfg.model.backbone.init_cfg.type = kind
    with pytest.raises(ConfigError, match='not found: no/where.pth'):
        check_weights(cfg)


def test_missing_weights_of_a_released_model(tmp_path):
    """Also in a user's own config, wherever it lies."""
    checkpoint = 'checkpoints/spatial-mamba-tiny.pth'
    for name in (None, tmp_path / 'config.py'):
        with pytest.raises(ConfigError, match='spatial_mamba/README.md tells'):
            check_weights(pretrained(checkpoint, name))


def test_weights_of_the_inherited_backbone(tmp_path):
    """mmseg's base configs have model.pretrained, for their ResNet."""
    name = 'open-mmlab://resnet50_v1c'
    cfg = Config(dict(model=dict(pretrained=name, backbone=dict())))
    cfg.model.backbone.type = 'VMamba'
    with pytest.raises(ConfigError, match='set model.pretrained=None, and'):
        check_weights(cfg)
    cfg.model.backbone.type = 'mmseg.ResNetV1c'
    check_weights(cfg)
    cfg.model = dict(pretrained=None, backbone=dict(type='VMamba'))
    check_weights(cfg)


def test_weights_that_are_there_or_fetched(tmp_path):
    file = tmp_path / 'weights.pth'
    file.touch()
    for checkpoint in (file, f'file://{file}', 'https://x.org/weights.pth'):
        check_weights(pretrained(checkpoint))
    check_weights(Config(dict(model=dict(type='A'))))
    check_weights(Config(dict(model=dict(backbone=dict(init_cfg=None)))))
