import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from torch.autograd.profiler import profile

from mmssm.apis import evaluate, train
from mmssm.apis.evaluate import _check_metrics, _read_scores, _use_tta
from mmssm.apis.scores import LogReader
from mmssm.utils import CheckpointError, ConfigError


def test_metrics_and_predictions(toy_config):
    train(toy_config, work_dir='out')
    metrics = evaluate(
        toy_config, 'out/epoch_2.pth', work_dir='test', out='p/pred.pkl'
    )
    assert metrics['count'] == 6
    assert metrics['error'] < 1
    predictions = pickle.loads(Path('p/pred.pkl').read_bytes())
    assert len(predictions) == 6


def test_prepared_for_a_cpu(toy_config):
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    plain = evaluate(toy_config, 'out/epoch_1.pth', work_dir='test')
    with profile() as events:
        prepared = evaluate(
            toy_config,
            'out/epoch_1.pth',
            work_dir='test',
            optimize='float32',
        )
    names = [event.name for event in events.function_events]
    assert 'mkldnn::_linear_pointwise' in names
    assert prepared == pytest.approx(plain)


def test_wrong_model_is_refused(toy_config):
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    with pytest.raises(CheckpointError, match='linear.weight is'):
        evaluate(
            toy_config,
            'out/epoch_1.pth',
            work_dir='test',
            options={'model.width': 2},
        )


def test_bad_requests(toy_config):
    with pytest.raises(CheckpointError, match='none.pth does not exist'):
        evaluate(toy_config, 'none.pth')
    Path('some.pth').write_bytes(b'x')
    Path('file').touch()
    for out, message in (
        ('folder', r'ends in \.pkl'),
        ('file/a.pkl', 'cannot write to file .*choose another --out'),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(toy_config, 'some.pth', out=out)
    with pytest.raises(ConfigError, match='default_hooks.visualization'):
        evaluate(toy_config, 'some.pth', show_dir='pictures')


def test_every_part_of_a_test_set_is_augmented():
    cfg = Config(
        dict(
            model=dict(type='Net'),
            tta_model=dict(type='TTA', flip=True),
            tta_pipeline=[dict(type='Flip')],
            test_dataloader=dict(
                dataset=dict(
                    type='ConcatDataset',
                    datasets=[
                        dict(type='A', pipeline=[]),
                        dict(type='Repeat', dataset=dict(type='B')),
                    ],
                )
            ),
        )
    )
    _use_tta(cfg)
    assert cfg.model == dict(type='TTA', flip=True, module=dict(type='Net'))
    first, second = cfg.test_dataloader.dataset.datasets
    assert first.pipeline == second.dataset.pipeline == cfg.tta_pipeline
    assert 'pipeline' not in cfg.test_dataloader.dataset


def test_augmentation_of_each_task(
    mini_tasks, untrained, tmp_path, monkeypatch, capsys
):
    root, tasks = mini_tasks
    monkeypatch.chdir(root)
    for scope, _, metric in tasks:
        for tta in (False, True):
            metrics = evaluate(
                *untrained[scope],
                work_dir=str(tmp_path / scope),
                tta=tta,
                options={'test_dataloader.dataset.indices': 4},
            )
            assert metric in metrics
        # Both results in one row.
        row = capsys.readouterr().out.rpartition(metric + ' ')[2]
        assert len(row.splitlines()[0].split()) == 2


def test_a_config_without_augmentation_is_refused(toy_config):
    Path('some.pth').write_bytes(b'x')
    with pytest.raises(
        ConfigError, match='sets no tta_model or tta_pipeline, which --tta'
    ):
        evaluate(toy_config, 'some.pth', tta=True)


def test_metrics_that_would_fail_after_the_test(monkeypatch):
    evaluator = dict(type='mmdet.CocoPanopticMetric')
    cfg = Config(dict(test_evaluator=evaluator))
    module = sys.modules[_check_metrics.__module__]
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='pip install git.*panopticapi'):
        _check_metrics(cfg)


def test_datasets_of_different_classes_keep_their_scores():
    """Of these, mmdet's metainfo is a list."""
    known = [dict(classes=('ant',)), dict(classes=('fox', 'owl'))]
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=known))
    runner = SimpleNamespace(test_dataloader=loader)
    scores = _read_scores(runner, {'a/mAP': 0.5}, LogReader())
    assert scores.metrics == {'a/mAP': 0.5}


def test_home_folder_in_a_checkpoints_path(toy_config, monkeypatch):
    monkeypatch.setenv('HOME', str(Path.cwd()))
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    assert evaluate(toy_config, '~/out/epoch_1.pth', work_dir='test')
