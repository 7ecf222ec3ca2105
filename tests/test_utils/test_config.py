import sys

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS, HOOKS
from torch import nn

from mmssm.utils import ConfigError
from mmssm.utils.config import (
    in_one_process,
    load_config,
    metrics_of,
    refuse_unknown,
    registered,
    type_name,
)


def test_work_dir(toy_config):
    assert load_config(toy_config).work_dir == 'work_dirs/config'
    assert load_config(toy_config, dict(work_dir='a')).work_dir == 'a'
    assert (
        load_config(toy_config, dict(work_dir='a'), work_dir='b').work_dir
        == 'b'
    )


def test_options(toy_config):
    cfg = load_config(toy_config, {'optim_wrapper.optimizer.lr': 0.5})
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'


@pytest.mark.parametrize(
    'text, cause',
    [
        (None, 'does not exist'),
        ('model = dict(', 'SyntaxError'),
        ("_base_ = './nowhere.py'", 'nowhere.py'),
        ("_base_ = 'mmdet::no/such/config.py'", 'no/such/config.py'),
        ('model = undefined', 'undefined'),
        ('model = 1 / 0', 'ZeroDivisionError'),
        (
            'from mmengine.config import read_base\n'
            'with read_base():\n    from .nowhere import *',
            'nowhere.py not found',
        ),
        (
            'from mmengine.config import read_base\n'
            'with read_base():\n    from mmengine.config import Nothing',
            'ConfigParsingError',
        ),
        (
            'from mmengine.config import read_base\n'
            'with read_base():\n    import json',
            'AssertionError: Illegal syntax',
        ),
        (
            'from mmengine.hooks import NoSuchHook\n'
            'hooks = [dict(type=NoSuchHook)]',
            'Failed to import NoSuchHook from mmengine.hooks',
        ),
        (
            'from no_such_package import Hook\nhook = dict(type=Hook)',
            'no_such_package',
        ),
    ],
)
def test_config_that_cannot_be_read(tmp_path, text, cause):
    path = tmp_path / 'broken.py'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=cause) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_option_that_does_not_fit(toy_config):
    with pytest.raises(ConfigError, match='--cfg-options does not fit'):
        load_config(toy_config, {'model.type.name': 1})


def test_custom_module_is_imported(toy_config):
    from mmengine.registry import MODELS

    load_config(toy_config)
    assert MODELS.get('ToyModel') is not None


@pytest.mark.parametrize('workers, persistent', [(0, False), (2, True)])
def test_loaders_of_mmpretrain(tmp_path, workers, persistent):
    path = tmp_path / 'cls.py'
    path.write_text(
        "default_scope = 'mmpretrain'\n"
        f'train_dataloader = dict(num_workers={workers})\n'
        'val_dataloader = None\n'
        "test_dataloader = dict(collate_fn=dict(type='mine'))\n"
    )
    cfg = load_config(str(path))
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.persistent_workers is persistent
    assert cfg.val_dataloader is None
    assert cfg.test_dataloader.collate_fn.type == 'mine'


def test_renamed_config_is_told(tmp_path, capsys):
    (tmp_path / 'new.py').write_text('a = 1\n')
    (tmp_path / 'old.py').write_text(
        "_base_ = './new.py'\n_deprecation_ = dict(expected='new.py')\n"
    )
    assert load_config(str(tmp_path / 'old.py')).a == 1
    assert 'Please use new.py instead' in capsys.readouterr().err
    load_config(str(tmp_path / 'new.py'))
    assert not capsys.readouterr().err


def test_other_warnings_of_a_config_are_kept(tmp_path):
    (tmp_path / 'a.py').write_text("__import__('warnings').warn('old')\n")
    with pytest.warns(UserWarning, match='^old$'):
        load_config(str(tmp_path / 'a.py'))


def test_custom_module_beside_the_config(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.path', list(sys.path))
    (tmp_path / 'beside_config.py').write_text('found = True\n')
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['beside_config'])\n")
    load_config(str(path))
    assert sys.modules.pop('beside_config').found


@pytest.mark.parametrize(
    'text',
    [
        'model = "VMamba"',
        'train_dataloader = []',
        'val_dataloader = dict(dataset="coco")',
        'train_cfg = 12',
        'optim_wrapper = "AdamW"',
    ],
)
def test_parts_that_are_no_dicts(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(f"default_scope = 'mmpretrain'\n{text}\n")
    with pytest.raises(ConfigError, match='must be a dict'):
        load_config(str(path))


@pytest.mark.parametrize(
    'given, message',
    [
        ("dict(imports=['no_such_module'])", "no module 'no_such_module'"),
        ("dict(import_=['json'])", 'must be a dict of imports'),
        ("['json']", 'must be a dict of imports'),
    ],
)
def test_custom_imports_that_are_wrong(tmp_path, given, message):
    path = tmp_path / 'config.py'
    path.write_text(f'custom_imports = {given}\n')
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(path))
    assert f'custom_imports of {path}' in str(caught.value)


@pytest.mark.parametrize(
    'kind',
    [
        'CheckpointHook',
        'mmengine.CheckpointHook',
        'mmengine.hooks.CheckpointHook',
        CheckpointHook,
    ],
)
def test_a_type_in_all_its_spellings(kind):
    settings = dict(type=kind)
    assert registered(HOOKS, settings, 'mmdet') is CheckpointHook
    assert registered(HOOKS, settings, None) is CheckpointHook
    assert type_name(kind) == 'CheckpointHook'


@pytest.mark.parametrize(
    'kind', [None, '', 'NoSuchHook', 'no.such.Hook', 'mmengine.hooks', len]
)
def test_a_type_that_is_no_class(kind):
    assert registered(HOOKS, dict(type=kind), None) is None


def test_a_type_of_another_librarys_base():
    from mmdet.datasets import CocoDataset

    settings = dict(type='CocoDataset', _scope_='mmdet')
    assert registered(DATASETS, settings, 'mmseg') is CocoDataset
    refuse_unknown(DATASETS, settings, 'mmseg')
    with pytest.raises(ConfigError, match="mmseg::.*mean 'COCOStuffDataset'"):
        refuse_unknown(DATASETS, dict(type='CocoStuffDataset'), 'mmseg')


def test_a_type_that_is_not_named():
    assert registered(HOOKS, {}, None) is None
    assert registered(HOOKS, {}, None, 'CheckpointHook') is CheckpointHook
    assert type_name(None) == ''
    assert type_name(len) == 'len'


@pytest.mark.parametrize(
    'evaluator, names',
    [
        (None, []),
        (dict(type='A'), ['A']),
        ([dict(type='A'), dict(type='B')], ['A', 'B']),
        (dict(type='Evaluator', metrics=[dict(type='A')]), ['A']),
        (dict(metrics=dict(type='A')), ['A']),
    ],
)
def test_metrics(evaluator, names):
    cfg = Config(dict(val_evaluator=evaluator))
    assert [metric.type for metric in metrics_of(cfg, 'val')] == names


@pytest.mark.parametrize(
    'kind',
    ['MMSyncBN', 'mmcv.ops.SyncBatchNorm', nn.SyncBatchNorm, 'mmcv.MMSyncBN'],
)
def test_norms_of_several_processes(kind):
    norm = ConfigDict(type=kind, eps=1e-3, stats_mode='N')
    model = ConfigDict(heads=[dict(norm_cfg=norm), dict(norm_cfg=None)], a=1)
    changed = in_one_process(model)
    norm_cfg = dict(type='SyncBN', eps=1e-3)
    heads = [dict(norm_cfg=norm_cfg), dict(norm_cfg=None)]
    assert changed == dict(heads=heads, a=1)
    assert model.heads[0].norm_cfg == norm
