"""The config of a run, in a process that does not import mmssm itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
)

import mmssm.models  # noqa: F401
from mmssm import Vim
from mmssm.apis import train
from mmssm.engine import AtomicCheckpointHook, MESAHook
from mmssm.engine.runner import make_portable

ROOT = Path(__file__).parents[3]

# As mmdet's tools/train.py.
OTHER_TOOL = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
from mmdet.utils import register_all_modules

cfg = Config.fromfile(sys.argv[1])
cfg.work_dir = sys.argv[2]
Runner.from_cfg(cfg).train()
"""

NEW_STYLE = """
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper
from toy import ToyDataset, ToyModel

from mmssm.engine import PartialLoadHook

custom_imports = dict(imports=['toy'], allow_failed_imports=False)
model = dict(type=ToyModel)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=ToyDataset),
)
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(
    type=AmpOptimWrapper, optimizer=dict(type='AdamW', lr=0.1)
)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
custom_hooks = [dict(type=PartialLoadHook)]
"""


def test_another_tool_runs_it(toy_config, tmp_path):
    train(
        toy_config,
        work_dir='out',
        options={
            'default_scope': 'mmdet',
            'train_cfg.max_epochs': 1,
            'custom_hooks': [dict(type='PartialLoadHook')],
        },
    )
    dumped = Config.fromfile('out/config.py')
    assert dumped.custom_imports.imports == ['mmssm', 'toy']
    script = tmp_path / 'other_tool.py'
    script.write_text(OTHER_TOOL)
    done = subprocess.run(
        [sys.executable, script, 'out/config.py', 'other'],
        env=dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path[:1]]),
            CUDA_VISIBLE_DEVICES='',
        ),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert Path('other/epoch_1.pth').exists()


def test_config_of_pythons_imports(toy_config):
    """Classes in the config are dumped with their modules."""
    Path('new.py').write_text(NEW_STYLE)
    train('new.py', work_dir='out', options={'custom_imports.imports': 'toy'})
    dumped = Config.fromfile('out/new.py', import_custom_modules=False)
    assert dumped.custom_imports.imports == ['mmssm', 'toy']
    kind = dumped.default_hooks.checkpoint.type
    assert kind == 'mmssm.engine.AtomicCheckpointHook'
    kind = dumped.custom_hooks[0].type
    assert kind.startswith('mmssm.engine') and kind.endswith('PartialLoadHook')
    assert dumped.optim_wrapper.type.startswith('mmengine.')
    assert dumped.optim_wrapper.type.endswith('.AmpOptimWrapper')


def test_every_type_gets_its_module():
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='VMamba'),
                neck=dict(type='mmengine.SimpleFPN'),
                other=dict(type=Vim),
            ),
            optim_wrapper=dict(
                constructor='LayerDecayOptimWrapperConstructor',
                optimizer=dict(type='AdamW'),
            ),
            custom_hooks=[dict(type='MESAHook'), dict(type='EMAHook')],
            default_hooks=dict(
                checkpoint=dict(type='AtomicCheckpointHook'), timer=None
            ),
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(
                        type='MiniImageNetDataset',
                        pipeline=[dict(type='LoadImagePair')],
                    ),
                )
            ),
            val_evaluator=(dict(type='ChangeMetric'),),
        )
    )
    make_portable(cfg)
    assert cfg.model.type == 'ImageClassifier'
    assert cfg.model.backbone.type == 'mmssm.VMamba'
    assert cfg.model.neck.type == 'mmssm.models.SimpleFPN'
    assert cfg.model.other.type is Vim
    assert cfg.optim_wrapper == dict(
        constructor='mmssm.engine.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW'),
    )
    kinds = [hook.type for hook in cfg.custom_hooks]
    assert kinds == ['mmssm.engine.MESAHook', 'EMAHook']
    kind = cfg.default_hooks.checkpoint.type
    assert kind == 'mmssm.engine.AtomicCheckpointHook'
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'RepeatDataset'
    assert dataset.dataset.type == 'mmssm.datasets.MiniImageNetDataset'
    step = dataset.dataset.pipeline[0]
    assert step.type == 'mmssm.datasets.LoadImagePair'
    assert cfg.val_evaluator[0].type == 'mmssm.evaluation.ChangeMetric'
    assert cfg.custom_imports.imports == ['mmssm']
    before = cfg.to_dict()
    make_portable(cfg)
    assert cfg.to_dict() == before


def test_every_registered_type_is_found_by_its_module():
    """In the scope of each library."""
    found = 0
    for registry in (DATASETS, HOOKS, METRICS, MODELS):
        for name, kind in registry.module_dict.items():
            if not kind.__module__.startswith('mmssm.'):
                continue
            cfg = Config(dict(part=dict(type=name)))
            make_portable(cfg)
            for scope in ('mmdet', 'mmseg', 'mmpretrain'):
                with registry.switch_scope_and_registry(scope) as scoped:
                    assert scoped.get(cfg.part.type) is kind
            found += 1
    assert found > 20
    constructors = OPTIM_WRAPPER_CONSTRUCTORS.module_dict
    assert 'LayerDecayOptimWrapperConstructor' in constructors


@pytest.mark.parametrize('imports', ['mine', ['mine'], ('mine', 'mmssm')])
def test_custom_imports_are_kept(imports):
    given = dict(imports=imports, allow_failed_imports=True)
    hook = dict(type=AtomicCheckpointHook)
    cfg = Config(dict(custom_imports=given, custom_hooks=[hook]))
    make_portable(cfg)
    assert set(cfg.custom_imports.imports) == {'mine', 'mmssm'}
    assert cfg.custom_imports.allow_failed_imports


def test_a_librarys_type_of_the_same_name():
    from mmdet.registry import HOOKS as MMDET_HOOKS

    class Other(MESAHook):
        pass

    MMDET_HOOKS.register_module(name='MESAHook', module=Other)
    try:
        cfg = Config(
            dict(default_scope='mmdet', custom_hooks=[dict(type='MESAHook')])
        )
        make_portable(cfg)
        assert cfg.custom_hooks[0].type == 'MESAHook'
        assert 'custom_imports' not in cfg
    finally:
        MMDET_HOOKS.module_dict.pop('MESAHook')
