"""Annotations of one's own that do not fit are told in one line."""

import json

import pytest
from mmengine.config import Config

from mmssm.apis.annotations import check_annotations
from mmssm.utils import ConfigError

BALL = dict(id=9, image_id=7, category_id=3, area=9, bbox=[0, 0, 3, 3])
MASK = dict(segmentation=[[0, 0, 3, 0, 3, 3]])


@pytest.fixture
def write(tmp_path):
    """Write a set of two images, the second without objects."""
    (tmp_path / 'train').mkdir()

    def write(objects=(BALL | MASK,), files=('ä b.JPG', '2.png'), **changes):
        for file in files:
            (tmp_path / 'train' / file).touch()
        content = dict(
            images=[
                dict(id=7, file_name='ä b.JPG', height=4, width=4),
                dict(id=20, file_name='2.png', height=4, width=4),
            ],
            annotations=list(objects),
            categories=[dict(id=3, name='ball'), dict(id=5, name='box')],
        )
        content |= changes
        kept = {k: v for k, v in content.items() if v is not None}
        (tmp_path / 'train.json').write_text(json.dumps(kept))

    return write


@pytest.fixture
def config(tmp_path):
    def config(classes=('box', 'ball'), evaluator=None, **dataset):
        dataset = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file='train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            pipeline=[dict(type='LoadAnnotations', with_mask=True)],
            **dataset,
        )
        ann_file = str(tmp_path / 'train.json')
        evaluator = evaluator or dict(type='CocoMetric', ann_file=ann_file)
        return Config(
            dict(
                train_dataloader=dict(dataset=dataset),
                train_evaluator=evaluator,
            )
        )

    return config


def test_what_fits(write, config, tmp_path):
    write()
    check_annotations(config(), 'train', 'val')
    write(annotations=None)
    cfg = config()
    cfg.test_dataloader = cfg.train_dataloader
    check_annotations(cfg, 'test')
    write()
    names = tmp_path / 'names.txt'
    names.write_text('box\nball\n')
    check_annotations(config(str(names)), 'train')


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (
            ('ball', 'Box', 'bag'),
            "classes names 'Box', 'bag', but the categories of .*train.json "
            "are 'ball', 'box';",
        ),
        ('ball', r"is the text 'ball'; .* with a comma: \('ball',\)"),
    ],
)
def test_names(write, config, classes, message):
    write()
    with pytest.raises(ConfigError, match=message):
        check_annotations(config(classes), 'train')


def test_names_in_the_metrics_file(write, config, tmp_path):
    write()
    other = tmp_path / 'other.json'
    other.write_text('{"images": [], "annotations": [], "categories": []}')
    evaluator = dict(type='CocoMetric', ann_file=str(other))
    with pytest.raises(ConfigError, match='other.json are none'):
        check_annotations(config(evaluator=evaluator), 'train')


def test_sets_with_classes_and_a_metric_each(write, config, tmp_path):
    write(annotations=[])
    first, file = config(), tmp_path / 'other.json'
    content = json.loads((tmp_path / 'train.json').read_text())
    content['categories'] = [dict(id=1, name='cat')]
    file.write_text(json.dumps(content))
    one = first.train_dataloader.dataset
    two = dict(one, ann_file='other.json', metainfo=dict(classes=('cat',)))
    both = dict(type='ConcatDataset', datasets=[one, two])
    metrics = [
        dict(type='CocoMetric', ann_file=str(tmp_path / name))
        for name in ('train.json', 'other.json')
    ]
    evaluator = dict(type='MultiDatasetsEvaluator', metrics=metrics)
    cfg = dict(test_dataloader=dict(dataset=both), test_evaluator=evaluator)
    check_annotations(Config(cfg), 'test')


def test_one_of_several_sets_may_have_no_objects(write, config, tmp_path):
    """As the unlabeled set of a teacher, or images of the background."""
    write()
    cfg, file = config(), tmp_path / 'empty.json'
    content = json.loads((tmp_path / 'train.json').read_text())
    file.write_text(json.dumps(dict(content, annotations=[])))
    one = cfg.train_dataloader.dataset
    sets = [dict(one), dict(one, ann_file='empty.json')]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=sets)
    check_annotations(cfg, 'train')
    cfg.train_dataloader.dataset.datasets[0].ann_file = 'empty.json'
    with pytest.raises(ConfigError, match='nothing to learn'):
        check_annotations(cfg, 'train')


def test_objects_without_masks(write, config):
    write([BALL | MASK, BALL | dict(id=11)])
    cfg = config()
    with pytest.raises(ConfigError, match=r'1 of 2 objects .*first has id 11'):
        check_annotations(cfg, 'train')
    cfg.train_dataloader.dataset.pipeline[0].with_mask = False
    check_annotations(cfg, 'train')


@pytest.mark.parametrize(
    'change',
    [dict(area=0), dict(ignore=1), dict(bbox=[0, 0, 0.5, 3])],
    ids=str,
)
def test_objects_that_mmdet_leaves_out_need_no_mask(write, config, change):
    write([BALL | MASK, BALL | change])
    check_annotations(config(), 'train')


def test_images(write, config):
    write(files=['ä b.JPG'])
    with pytest.raises(ConfigError, match=r'1 of 2 images .*train/2.png;'):
        check_annotations(config(), 'train')
    # Not read: it has no object.
    cfg = config(filter_cfg=dict(filter_empty_gt=True))
    check_annotations(cfg, 'train')
    write(objects=[])
    with pytest.raises(ConfigError, match='no image in .* has an object'):
        check_annotations(cfg, 'train')


def test_nothing_to_learn(write, config):
    cfg = config()
    write(images=[], objects=[])
    with pytest.raises(ConfigError, match='ann_file. has no image; add some'):
        check_annotations(cfg, 'train')
    cfg.val_dataloader = cfg.train_dataloader
    for objects in ([], [BALL | MASK | dict(area=0)]):
        write(objects)
        with pytest.raises(ConfigError, match='no object of the classes of'):
            check_annotations(cfg, 'train')
        check_annotations(cfg, 'val')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"images": [', 'not a JSON file'),
        ('{}', 'has no images and no categories'),
    ],
)
def test_files(write, config, tmp_path, text, message):
    write()
    (tmp_path / 'train.json').write_text(text)
    with pytest.raises(ConfigError, match=message):
        check_annotations(config(), 'train')


def test_entries(write, config):
    write([BALL | MASK, dict(id=11, image_id=7, category_id=3)])
    with pytest.raises(ConfigError, match=r'annotations\[1\] .* has no bbox'):
        check_annotations(config(), 'train')


@pytest.mark.parametrize(
    'change', [dict(metainfo=None), dict(type='LVISDataset')], ids=str
)
def test_other_sets_are_not_read(config, change):
    """Nothing is written, so that reading would fail."""
    cfg = config()
    cfg.train_dataloader.dataset.update(change)
    check_annotations(cfg, 'train')
