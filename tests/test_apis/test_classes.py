import pytest
from mmengine.config import Config
from torch import nn

from mmssm.apis.classes import (
    check_count,
    find_classes,
    find_palette,
)
from mmssm.apis.tasks import find_task
from mmssm.utils import ConfigError
from mmssm.visualization.palette import Classes, generate_palette

PALETTE = [[10, 20, 30], [200, 0, 0], [0, 0, 250]]


def config(scope, kind, **dataset):
    """A config whose test dataset stands in two wrappers."""
    dataset = dict(type=kind, **dataset)
    dataset = dict(type='ConcatDataset', datasets=[dataset])
    dataset = dict(type='RepeatDataset', times=1, dataset=dataset)
    cfg = dict(default_scope=scope, test_dataloader=dict(dataset=dataset))
    return Config(cfg)


def check_test_set(cfg):
    find_task(cfg).check_test_set(cfg)


def metainfo(cfg):
    return cfg.test_dataloader.dataset.dataset.datasets[0].metainfo


def test_where_names_and_colors_come_from():
    from mmdet.datasets import CocoDataset

    cfg = config('mmdet', 'CocoDataset', metainfo=dict(classes=('dog', 'cat')))
    coco = CocoDataset.METAINFO
    colors = dict(zip(coco['classes'], coco['palette']))
    found = find_classes(cfg, {})
    assert found.names == ['dog', 'cat']
    assert found.palette == [colors['dog'], colors['cat']]
    metainfo(cfg).palette = [(1, 2, 3), (4, 5, 6)]
    assert find_classes(cfg, {}).palette == [(1, 2, 3), (4, 5, 6)]
    saved = dict(meta=dict(CLASSES=('a', 'b', 'c'), PALETTE=PALETTE))
    found = find_classes(cfg, saved)
    assert found.names == ['a', 'b', 'c']
    assert found.palette == [tuple(color) for color in PALETTE]
    del saved['meta']['PALETTE']
    assert find_classes(cfg, saved).palette == generate_palette(3)
    assert find_palette(cfg, ['x', 'y']) == [(1, 2, 3), (4, 5, 6)]


def test_generated_colors_differ():
    assert len(set(generate_palette(150))) == 150


def test_names_may_be_in_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('ant\nfox\n')
    cfg = config('mmpretrain', 'ImageNet', classes=str(tmp_path / 'names.txt'))
    assert find_classes(cfg, {}).names == ['ant', 'fox']
    cfg = config('mmseg', 'BaseSegDataset', metainfo=dict(classes='no.txt'))
    for check in (check_test_set, lambda cfg: find_classes(cfg, {})):
        with pytest.raises(ConfigError, match='class names are unknown'):
            check(cfg)


def test_names_that_mmseg_needs():
    cfg = config('mmseg', 'BaseSegDataset', metainfo=dict())
    place = 'test_dataloader.dataset.dataset.datasets.0.metainfo.classes='
    with pytest.raises(ConfigError, match=place) as caught:
        check_test_set(cfg)
    assert 'neither BaseSegDataset nor ' in str(caught.value)
    with pytest.raises(ConfigError, match=place):
        find_classes(cfg, {})
    metainfo(cfg).classes = ('ant', 'fox')
    check_test_set(cfg)  # mmseg makes a palette up
    metainfo(cfg).palette = PALETTE
    with pytest.raises(ConfigError, match='3 colors for 2 classes'):
        check_test_set(cfg)


def test_some_of_the_classes_mmseg_knows():
    """What is refused is what mmseg's datasets refuse."""
    from mmseg.datasets import ADE20KDataset

    palette = ADE20KDataset.METAINFO['palette']
    meta = dict(classes=('wall', 'sky'), palette=palette)
    cfg = config('mmseg', 'ADE20KDataset', metainfo=meta)
    check_test_set(cfg)
    ADE20KDataset(metainfo=meta, lazy_init=True)
    metainfo(cfg).palette = meta['palette'] = palette[:1]
    with pytest.raises(ConfigError, match='1 colors for 2 classes'):
        check_test_set(cfg)
    with pytest.raises(ValueError, match='palette does not match'):
        ADE20KDataset(metainfo=meta, lazy_init=True)


def test_what_works_without_names():
    check_test_set(config('mmpretrain', 'CustomDataset'))
    check_test_set(config('mmpretrain', 'ImageNet'))
    # It reads them from its label_file.
    check_test_set(config('mmdet', 'OpenImagesDataset'))


def test_count_must_be_that_of_the_head():
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.ModuleList([nn.Module(), nn.Module()])
    model.roi_head.bbox_head[-1].num_classes = 3
    check_count(model, Classes(['a', 'b', 'c'], [], 'x'))
    with pytest.raises(ConfigError, match='x lists 2 class names .a, .*has 3'):
        check_count(model, Classes(['a', 'b'], [], 'x'))
