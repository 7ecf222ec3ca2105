import sys

import pytest

from mmssm.utils import ConfigError
from mmssm.utils.config import load_config


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
