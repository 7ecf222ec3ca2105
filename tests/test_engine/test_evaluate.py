import pickle
from pathlib import Path

import pytest
from mmengine.config import Config

from mmssm.checkpoint import CheckpointError
from mmssm.engine import ConfigError, evaluate, train
from mmssm.engine.evaluate import _draw_into, _use_tta


def test_metrics_and_predictions(toy_config):
    train(toy_config, work_dir='out')
    metrics = evaluate(
        toy_config, 'out/epoch_2.pth', work_dir='test', out='p/pred.pkl'
    )
    assert metrics['count'] == 6
    assert metrics['error'] < 1
    predictions = pickle.loads(Path('p/pred.pkl').read_bytes())
    assert len(predictions) == 6


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
    with pytest.raises(ConfigError, match=r'ends in \.pkl'):
        evaluate(toy_config, 'some.pth', out='folder')
    with pytest.raises(ConfigError, match='tta_model or tta_pipeline'):
        evaluate(toy_config, 'some.pth', tta=True)
    with pytest.raises(ConfigError, match='default_hooks.visualization'):
        evaluate(toy_config, 'some.pth', show_dir='pictures')


@pytest.mark.parametrize(
    'scope, where',
    [
        ('mmdet', lambda c: c.default_hooks.visualization.test_out_dir),
        ('mmseg', lambda c: c.visualizer.save_dir),
        ('mmpretrain', lambda c: c.default_hooks.visualization.out_dir),
    ],
)
def test_pictures(scope, where):
    cfg = Config(
        dict(
            default_scope=scope,
            default_hooks=dict(visualization=dict(type='Hook')),
            visualizer=dict(type='Visualizer'),
        )
    )
    _draw_into(cfg, '/pictures')
    assert where(cfg) == '/pictures'


def test_tta():
    cfg = Config(
        dict(
            model=dict(type='Net'),
            tta_model=dict(type='TTA', flip=True),
            tta_pipeline=[dict(type='Flip')],
            test_dataloader=dict(
                dataset=dict(
                    type='Repeat', dataset=dict(type='D', pipeline=[])
                )
            ),
        )
    )
    _use_tta(cfg)
    assert cfg.model == dict(type='TTA', flip=True, module=dict(type='Net'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == cfg.tta_pipeline
