"""Necks, heads and datasets that do not fit are refused in one line."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmssm import VMamba
from mmssm.apis import evaluate, train
from mmssm.apis.flops import count_config
from mmssm.apis.model_checks import check_channels, check_num_classes
from mmssm.utils import ConfigError
from mmssm.utils.config import load_config

ROOT = Path(__file__).parents[2]
STAGES = dict(
    type='VMamba',
    arch=dict(embed_dims=16, depths=(1, 1, 1, 1)),
    out_indices=(0, 1, 2, 3),
)
PLAIN = dict(
    type='LocalVim',
    arch=dict(embed_dims=32, depth=2, directions=['h', 'w2']),
    img_size=64,
    out_type='featmap',
)


@pytest.fixture
def weights(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    return str(tmp_path / 'weights.pth')


def build(backbone=STAGES, **parts):
    cfg = Config(dict(model=dict(type='A', backbone=backbone, **parts)))
    model = nn.Module()
    with torch.device('meta'):
        model.backbone = MODELS.build(cfg.model.backbone)
    return cfg, model


def refused(*args, **parts):
    with pytest.raises(ConfigError) as caught:
        check_channels(*build(*args, **parts))
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    'parts',
    [
        dict(neck=dict(type='FPN', in_channels=[16, 32, 64, 128])),
        dict(neck=dict(type='FPN', in_channels=(16, 32, 64, 128))),
        dict(neck=dict(type='DilatedEncoder', in_channels=128)),
        dict(neck=[dict(type='FPN', in_channels=[16, 32, 64, 128])]),
        # What comes after a neck is not the backbone's matter.
        dict(neck=dict(type='Odd'), head=dict(in_channels=7)),
        dict(
            neck=dict(type='FPN', in_channels=[16, 32, 64, 128]),
            decode_head=dict(in_channels=[7] * 4),
        ),
        dict(
            neck=dict(type='GlobalAveragePooling'), head=dict(in_channels=128)
        ),
        dict(
            decode_head=dict(in_channels=[16, 64], in_index=[0, 2]),
            auxiliary_head=[
                dict(in_channels=64, in_index=2),
                dict(in_channels=128),
            ],
        ),
        dict(panoptic_head=dict(in_channels=[16, 32, 64, 128])),
        dict(head=dict(type='None of these')),
    ],
)
def test_parts_that_fit(parts):
    check_channels(*build(**parts))


@pytest.mark.parametrize(
    'parts, setting',
    [
        (
            dict(neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048])),
            'set model.neck.in_channels=[16, 32, 64, 128]',
        ),
        (
            dict(neck=[dict(type='FPN', in_channels=[96, 192, 384, 768])]),
            'set model.neck.0.in_channels=[16, 32, 64, 128]',
        ),
        (
            dict(
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(in_channels=768),
            ),
            'set model.head.in_channels=128',
        ),
        (
            dict(
                decode_head=dict(
                    in_channels=128, in_index=3, c1_in_channels=256
                )
            ),
            'set model.decode_head.c1_in_channels=16',
        ),
        (
            dict(auxiliary_head=[dict(in_channels=32, in_index=2)]),
            'set model.auxiliary_head.0.in_channels=64',
        ),
        (
            dict(
                neck=dict(type='Feature2Pyramid', embed_dim=32),
                decode_head=dict(in_channels=[32] * 4, in_index=[0, 1, 2, 3]),
            ),
            'set model.decode_head.in_channels=[16, 32, 64, 128]',
        ),
        (
            dict(neck=dict(type='PAFPN', in_channels=[32, 64, 128])),
            'set model.backbone.out_indices=[1, 2, 3] and '
            'model.neck.in_channels=[32, 64, 128]',
        ),
    ],
)
def test_parts_that_do_not_fit(parts, setting):
    text = refused(**parts)
    assert 'VMamba gives 4 maps of 16, 32, 64, 128 channels' in text
    assert text.endswith(setting)


def test_the_last_map_alone():
    """out_indices as they are by default, in a detector."""
    backbone = dict(STAGES, out_indices=(3,))
    wanted = [16, 32, 64, 128]
    text = refused(backbone, neck=dict(type='FPN', in_channels=wanted))
    assert 'gives 1 map of 128 channels' in text
    assert 'set model.backbone.out_indices=[0, 1, 2, 3] and' in text
    text = refused(backbone, decode_head=dict(in_channels=64, in_index=2))
    assert 'model.decode_head.in_channels is 64' in text


def test_a_plain_backbone():
    neck = dict(type='SimpleFPN', in_channels=32)
    check_channels(*build(PLAIN, neck=neck))
    text = refused(PLAIN, neck=dict(type='FPN', in_channels=[32] * 4))
    assert "type='mmssm.models.SimpleFPN', in_channels=32" in text
    vector = dict(PLAIN, out_type='avg_featmap')
    text = refused(vector, neck=neck)
    assert "gives a vector (out_type='avg_featmap'), but A needs maps" in text
    assert text.endswith("set model.backbone.out_type='featmap'")
    head = dict(in_channels=64)
    vector = dict(PLAIN, out_type='avg_featmap')
    assert 'set model.head.in_channels=32' in refused(vector, head=head)


def test_models_inside_of_others():
    cfg, model = build(neck=dict(type='FPN', in_channels=[1] * 4))
    inner = cfg.model
    cfg.model = dict(type='TTA', module=inner)
    with pytest.raises(ConfigError, match=r'set model\.neck\.in_channels='):
        check_channels(cfg, model)
    cfg.model = dict(type='SoftTeacher', detector=inner)
    with pytest.raises(ConfigError, match=r'set model\.detector\.neck\.in_ch'):
        check_channels(cfg, model)


def test_other_backbones_are_not_checked():
    cfg, _ = build(neck=dict(type='FPN', in_channels=[1] * 4))
    check_channels(cfg, nn.Conv2d(1, 1, 1))
    check_channels(Config(dict(model=dict(type='A'))), VMamba(STAGES['arch']))
    check_channels(cfg, cfg.model)  # not built yet


@pytest.mark.parametrize('tool', ['train', 'test', 'get_flops'])
def test_tools_say_it_before_they_read_data(tool, tmp_path, weights):
    path = str(ROOT / 'configs' / 'mini' / 'vmamba-mini_mini-in1k.py')
    options = {'model.head.in_channels': 77}
    with pytest.raises(ConfigError, match=r'set model\.head\.in_channels=256'):
        if tool == 'train':
            train(path, str(tmp_path), options=options)
        elif tool == 'test':
            evaluate(path, weights, str(tmp_path), options=options)
        else:
            count_config(load_config(path, options), (64, 64))


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_tools_compare_classes_before_they_build(tool, tmp_path, weights):
    path = str(ROOT / 'configs' / 'mini' / 'vmamba-mini_mini-in1k.py')
    options = {'model.head.num_classes': 77, 'model.type': 'Never built'}
    with pytest.raises(ConfigError, match=r'set model\.head\.num_classes=10'):
        if tool == 'train':
            train(path, str(tmp_path), options=options)
        else:
            evaluate(path, weights, str(tmp_path), options=options)


def data(dataset, split='train', **model):
    model = dict(type='A', backbone=STAGES, **model)
    return Config(
        {
            'model': model,
            'default_scope': 'mmengine',
            f'{split}_dataloader': dict(dataset=dataset),
        }
    )


NAMED = dict(type='Unknown', metainfo=dict(classes=('a', 'b', 'c')))


@pytest.mark.parametrize(
    'model, settings',
    [
        (dict(head=dict(num_classes=80)), 'model.head.num_classes=3'),
        (
            dict(
                roi_head=dict(
                    bbox_head=[dict(num_classes=80), dict(num_classes=3)],
                    mask_head=dict(num_classes=80),
                )
            ),
            'model.roi_head.bbox_head.0.num_classes=3 '
            'model.roi_head.mask_head.num_classes=3',
        ),
        (
            dict(
                decode_head=dict(num_classes=3),
                auxiliary_head=dict(num_classes=80),
            ),
            'model.auxiliary_head.num_classes=3',
        ),
    ],
)
def test_heads_with_other_classes(model, settings):
    for split in ('train', 'test'):
        cfg = data(dict(type='RepeatDataset', dataset=NAMED), split, **model)
        with pytest.raises(ConfigError) as caught:
            check_num_classes(cfg, 'train', 'test')
        place = f'{split}_dataloader.dataset.dataset'
        text = str(caught.value)
        assert f'is 80, but {place} (Unknown) has 3 classes (a, b, c)' in text
        assert f'are right, set {settings};' in text
        assert f'set {place}.metainfo.classes to your 80 names' in text
    check_num_classes(cfg, 'train', 'val')


def test_classes_of_a_dataset_class():
    """Those of COCO, where the names of one's own were forgotten."""
    import mmssm.datasets  # noqa: F401

    cfg = data(dict(type='MiniCocoDataset'), bbox_head=dict(num_classes=3))
    with pytest.raises(ConfigError, match=r'10 classes \(0, 1, 2, ...\)'):
        check_num_classes(cfg, 'train')


def test_one_folder_per_class(tmp_path):
    for name in ('ant', 'fox'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    (tmp_path / 'train' / 'list.txt').touch()
    dataset = dict(
        type='CustomDataset', data_root=str(tmp_path), data_prefix='train'
    )
    cfg = data(dataset, head=dict(num_classes=1000))
    with pytest.raises(ConfigError, match=r'2 classes \(ant, fox\).*=2;'):
        check_num_classes(cfg, 'train')
    for change in (
        dict(ann_file='list.txt'),
        dict(with_label=False),
        dict(data_root='nowhere'),
    ):
        cfg = data({**dataset, **change}, head=dict(num_classes=1000))
        check_num_classes(cfg, 'train')


def test_other_folders_for_validation(tmp_path):
    """They would silently get other labels."""
    dataset = dict(type='CustomDataset', data_root=str(tmp_path))
    for split, names in dict(train=('ant', 'fox'), val=('ant', 'owl')).items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
    cfg = data(dict(dataset, data_prefix='train'), head=dict(num_classes=2))
    cfg.val_dataloader = dict(dataset=dict(dataset, data_prefix='val'))
    check_num_classes(cfg, 'train')
    with pytest.raises(ConfigError, match="different class folders.*'fox'"):
        check_num_classes(cfg, 'train', 'val')
    for split, name in (('train', 'owl'), ('val', 'fox')):
        (tmp_path / split / name).mkdir()
    cfg.model.head.num_classes = 3
    check_num_classes(cfg, 'train', 'val')
    cfg.val_dataloader.dataset.metainfo = dict(classes=('ant', 'fox'))
    with pytest.raises(ConfigError, match='names 2 classes.*3 class folders'):
        check_num_classes(cfg, 'train', 'val')


def test_the_same_names_in_another_order():
    cfg = data(NAMED, head=dict(num_classes=3))
    turned = dict(NAMED, metainfo=dict(classes=('c', 'b', 'a')))
    cfg.val_dataloader = dict(dataset=turned)
    with pytest.raises(ConfigError, match='in another order'):
        check_num_classes(cfg, 'train', 'val')


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_mmsegs_metrics_need_names(split):
    unnamed = dict(type='BaseSegDataset')
    cfg = data(unnamed, split, decode_head=dict(num_classes=3))
    cfg.default_scope = 'mmseg'
    if split == 'train':
        check_num_classes(cfg, split)
        return
    with pytest.raises(ConfigError, match=rf'{split}_.*metainfo\.classes='):
        check_num_classes(cfg, split)


def test_classes_that_fit_or_are_not_known():
    check_num_classes(data(NAMED, head=dict(num_classes=3)), 'train')
    check_num_classes(data(NAMED, head=dict(type='A')), 'train')
    unknown = dict(type='Unknown')
    check_num_classes(data(unknown, head=dict(num_classes=9)), 'train')
    with_texts = dict(language_model=dict(), bbox_head=dict(num_classes=256))
    check_num_classes(data(NAMED, **with_texts), 'train')
    for names in (('a', 'b'), ('b',)):  # one output tells two classes apart
        two = dict(type='BaseSegDataset', metainfo=dict(classes=names))
        check_num_classes(data(two, decode_head=dict(num_classes=1)), 'train')
    binary = dict(type='mmseg.STDCHead', num_classes=2)
    check_num_classes(
        data(NAMED, decode_head=dict(num_classes=3), auxiliary_head=[binary]),
        'train',
    )
    import mmdet.datasets  # noqa: F401

    for kind in ('mmdet.CocoPanopticDataset', 'mmdet.MOTChallengeDataset'):
        heads = dict(bbox_head=dict(num_classes=80))
        check_num_classes(data(dict(NAMED, type=kind), **heads), 'train')
    agnostic = dict(num_classes=1, class_agnostic=True)
    check_num_classes(data(NAMED, roi_head=dict(mask_head=agnostic)), 'train')
    cfg = data(NAMED, head=dict(num_classes=9))
    cfg.model.backbone = dict(type='mmpretrain.ResNet', depth=18)
    check_num_classes(cfg, 'train')
