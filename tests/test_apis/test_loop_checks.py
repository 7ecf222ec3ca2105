from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.registry import METRICS

from mmssm.apis.loop_checks import check_hooks, check_loops
from mmssm.utils import ConfigError

ROOT = Path(__file__).parents[2]
SAMPLER = dict(type='DefaultSampler', shuffle=False)


def complete(**changes):
    loader = dict(dataset=dict(type='Set'), sampler=SAMPLER, num_workers=2)
    cfg = dict(optim_wrapper=dict(), train_cfg=dict(by_epoch=True))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'] = dict(loader)
    for split in ('val', 'test'):
        cfg[f'{split}_cfg'] = dict()
        cfg[f'{split}_evaluator'] = dict(type='mmssm.evaluation.ChangeMetric')
    cfg = Config(cfg)
    cfg.merge_from_dict(changes)
    return cfg


def refused(check, cfg, *splits):
    with pytest.raises(ConfigError) as caught:
        check(cfg, *splits)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'val_dataloader.num_workers': 0},
        {'train_dataloader.persistent_workers': True},
        {'train_dataloader.num_batch_per_epoch': 3},
        {'train_cfg': dict(type='EpochBasedTrainLoop', _delete_=True)},
        dict(val_dataloader=None, val_cfg=None, val_evaluator=None),
        dict(val_evaluator=[dict(type='A'), dict(type='B')]),
        dict(val_evaluator=dict(type='Evaluator', metrics=[dict(type='A')])),
    ],
    ids=str,
)
def test_what_works(changes):
    cfg = complete()
    for key, value in changes.items():
        cfg.merge_from_dict({key: value})
    check_loops(cfg, 'train', 'val', 'test')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {
                'val_dataloader.persistent_workers': True,
                'val_dataloader.num_workers': 0,
            },
            'set val_dataloader.persistent_workers=False, or num_workers',
        ),
        (
            {
                'train_dataloader.prefetch_factor': 2,
                'train_dataloader.num_workers': 0,
            },
            'set train_dataloader.prefetch_factor=None, or num_workers',
        ),
        (
            {'train_dataloader.batchsize': 2},
            "no setting 'batchsize'; did you mean 'batch_size'?",
        ),
        (
            {'train_dataloader.dataset': dict(data_root='x', _delete_=True)},
            'train_dataloader.dataset has no type; add one',
        ),
        (
            {'val_dataloader.dataset.pipeline': [dict(scale=1)]},
            "dataset.pipeline must be a list of dicts with a type, got {'sc",
        ),
        (
            {'val_dataloader.dataset.pipeline': dict(type='Resize')},
            'dataset.pipeline must be a list of dicts with a type',
        ),
        ({'test_cfg': None}, 'test_evaluator, but not test_cfg; they belong'),
        ({'val_evaluator': None}, 'but not val_evaluator; they belong'),
        ({'optim_wrapper': None}, 'train_cfg, but not optim_wrapper'),
        ({'test_evaluator': 'CocoMetric'}, "metrics, got 'CocoMetric'"),
        ({'val_evaluator': [dict(metric='bbox')]}, "got {'metric': 'bbox'}"),
        ({'val_evaluator': ['mIoU']}, 'val_evaluator must be a metric, such'),
        (
            {'val_dataloader.collate_fn': dict(type='default_colate')},
            "mean 'default_collate'?",
        ),
        ({'train_cfg.max_epochs': 'ten'}, "number from 1, got 'ten'"),
        ({'train_cfg.val_interval': 0}, 'val_interval must be a whole'),
        ({'randomness': dict(seed='1')}, "seed must be an int, got '1'"),
        ({'log_level': 'info'}, "mean 'INFO'?"),
        ({'train_cfg.type': 'EpochBasedTrainLoop'}, 'but sets both; write'),
        ({'train_cfg': dict(max_epochs=2, _delete_=True)}, 'sets neither;'),
    ],
    ids=str,
)
def test_what_is_refused(changes, message):
    cfg = complete(**changes)
    assert message in refused(check_loops, cfg, 'train', 'val', 'test')


def test_top_5_of_three_classes():
    metric = dict(type='Accuracy', topk=(1, 5))
    cfg = complete(
        default_scope='mmpretrain',
        model=dict(head=dict(num_classes=3)),
        val_evaluator=dict(metric, _delete_=True),
    )
    text = refused(check_loops, cfg, 'val')
    assert 'top-5 accuracy' in text
    assert 'leave 5 out of val_evaluator.topk' in text
    cfg.val_evaluator.topk = 1
    check_loops(cfg, 'val')
    cfg.val_evaluator.topk = (1, 5)
    cfg.model.head.num_classes = 5
    check_loops(cfg, 'val')


@pytest.mark.parametrize('key', ['dataset', 'sampler'])
def test_an_incomplete_loader(key):
    cfg = complete()
    del cfg.train_dataloader[key]
    text = refused(check_loops, cfg, 'train')
    assert f'train_dataloader.{key} must be a dict, such as dict(' in text
    cfg.train_dataloader[key] = 'Name'
    assert "), got 'Name'" in refused(check_loops, cfg, 'train')
    check_loops(cfg, 'val')


@METRICS.register_module()
class PrefixedMetric(BaseMetric):
    default_prefix = 'mine'

    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def saving(name, evaluator, kind='CheckpointHook'):
    cfg = complete(val_evaluator=evaluator, default_scope='mmengine')
    cfg.default_hooks = dict(checkpoint=dict(type=kind, save_best=name))
    return cfg


COCO = dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])
CHANGE = dict(type='mmssm.evaluation.ChangeMetric')


@pytest.mark.parametrize(
    ('name', 'evaluator'),
    [
        ('auto', COCO),
        ('coco/segm_mAP', COCO),
        (['coco/bbox_mAP', 'coco/segm_mAP_50'], COCO),
        ('my/bbox_mAP', dict(COCO, prefix='my')),
        ('coco/cat_precision', dict(COCO, classwise=True)),
        ('mIoU', dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])),
        ('mFscore', dict(type='mmseg.IoUMetric', iou_metrics=['mFscore'])),
        ('accuracy/top5', dict(type='mmpretrain.Accuracy', topk=(1, 5))),
        ('accuracy/top1', dict(type='mmpretrain.Accuracy')),
        ('kappa', CHANGE),
        ('mine/any', [CHANGE, dict(type='PrefixedMetric')]),
        ('any', [CHANGE, dict(type='SomeoneElses')]),
    ],
    ids=str,
)
def test_metrics_that_are_there(name, evaluator):
    check_hooks(saving(name, evaluator))


@pytest.mark.parametrize(
    ('name', 'evaluator', 'message'),
    [
        ('bbox_mAP', COCO, "mean 'coco/bbox_mAP'?"),
        ('coco/segm_mAP', dict(COCO, metric='bbox'), 'coco/bbox_mAP_75'),
        (['coco/bbox_mAP', 'coco/mAP'], COCO, "'coco/mAP' is none"),
        ('mDice', dict(type='mmseg.IoUMetric'), 'aAcc, mIoU, mAcc'),
        ('top1', dict(type='mmpretrain.Accuracy'), 'evaluator, accuracy/top1'),
        ('kapa', CHANGE, "mean 'kappa'?"),
        ('any', [CHANGE, dict(type='PrefixedMetric')], 'precision, recall'),
        ('any', dict(type='PrefixedMetric'), 'val_evaluator, mine/...'),
    ],
    ids=str,
)
@pytest.mark.parametrize('kind', ['CheckpointHook', CheckpointHook])
def test_metrics_that_are_not_there(name, evaluator, message, kind):
    text = refused(check_hooks, saving(name, evaluator, kind))
    assert 'default_hooks.checkpoint.save_best=' in text and message in text


def test_metrics_with_prefixes_of_datasets_or_models():
    several = dict(type='mmdet.MultiDatasetsEvaluator', metrics=[COCO])
    check_hooks(saving('A/coco/bbox_mAP', several))
    cfg = saving('teacher/coco/bbox_mAP', COCO)
    cfg.val_cfg.type = 'mmdet.TeacherStudentValLoop'
    check_hooks(cfg)
    cfg.val_cfg.type = 'ValLoop'
    refused(check_hooks, cfg)


@pytest.mark.parametrize('level', ['WARN', 'FATAL', 'NOTSET', 10])
def test_log_levels_of_python(level):
    check_loops(complete(log_level=level), 'train')


def test_monitor_of_early_stopping():
    cfg = complete(val_evaluator=CHANGE)
    hook = dict(type='EarlyStoppingHook', monitor='IoU')
    cfg.custom_hooks = [dict(type='EMAHook'), hook]
    check_hooks(cfg)
    cfg.custom_hooks[1].monitor = 'mIoU'
    text = refused(check_hooks, cfg)
    assert text.startswith("custom_hooks.1.monitor='mIoU' is none of")


def test_best_without_validation(capsys):
    cfg = saving('kappa', CHANGE)
    cfg.val_dataloader = None
    check_hooks(cfg)
    assert 'save_best has no effect' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('hooks', 'message'),
    [
        (dict(custom_hooks=dict(type='EMAHook')), 'must be a list of hooks'),
        (dict(custom_hooks=['EMAHook']), "hook, such as .* got 'EMAHook'"),
        (dict(default_hooks=[]), None),
        (
            dict(custom_hooks=[dict(type='EMAHook', priority='VERYLOW')]),
            "custom_hooks.0.priority='VERYLOW' .* mean 'VERY_LOW'",
        ),
        (dict(custom_hooks=[dict(type='EMAHook', priority='low')]), None),
        (dict(custom_hooks=[dict(type='EMAHook', priority=49)]), None),
        (dict(default_hooks=['LoggerHook']), 'must be a dict of hooks by'),
        (dict(default_hooks=dict(logger=dict(interval=5))), 'logger must be'),
        (
            dict(default_hooks=dict(chekpoint=dict(type='CheckpointHook'))),
            "default_hooks.chekpoint .* mean 'checkpoint'",
        ),
        (dict(default_hooks=dict(timer=None, mine=dict(type='A'))), None),
    ],
    ids=str,
)
def test_hooks(hooks, message):
    cfg = Config(hooks)
    if message is None:
        check_hooks(cfg)
    else:
        with pytest.raises(ConfigError, match=message):
            check_hooks(cfg)


@pytest.mark.parametrize(
    'path',
    sorted((ROOT / 'configs' / 'mini').glob('*.py')),
    ids=lambda path: path.stem,
)
def test_mini_configs_start_no_processes_that_persist(path):
    """mmpretrain's tool makes them persist where a config does not say."""
    cfg = Config.fromfile(path, import_custom_modules=False)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        assert loader.num_workers > 0 or loader.persistent_workers is False
