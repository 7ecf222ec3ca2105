import importlib
import subprocess
import sys
import textwrap

import pytest

from mmssm.utils import ConfigError
from mmssm.utils.imports import import_custom, when_imported


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_module_of_a_given_folder(tmp_path):
    (tmp_path / 'near_parts').mkdir()
    (tmp_path / 'near_parts' / 'hooks.py').write_text('found = True')
    import_custom(['near_parts.hooks'], [tmp_path])
    assert sys.modules['near_parts.hooks'].found
    assert sys.path[-1] == str(tmp_path)


def test_the_path_of_python_comes_first(tmp_path):
    (tmp_path / 'json.py').write_text('raise SystemExit')
    before = list(sys.path)
    import_custom('json', [tmp_path])
    assert sys.path == before


def test_a_missing_module_tells_where_it_was_looked_for(tmp_path):
    with pytest.raises(ConfigError) as caught:
        import_custom(['nowhere'], [tmp_path, '/other'], source='imports of x')
    assert str(caught.value) == (
        f"imports of x: no module 'nowhere' on Python's path, nor in "
        f'{tmp_path} or /other; check the name, or set PYTHONPATH to the '
        'folder that holds it'
    )


def test_a_module_that_needs_a_missing_one(tmp_path):
    (tmp_path / 'needs_more.py').write_text('import not_installed')
    with pytest.raises(ConfigError, match="'needs_more'.*'not_installed'"):
        import_custom(['needs_more'], [tmp_path])
    (tmp_path / 'wrong_name.py').write_text('from json import no_such')
    with pytest.raises(ConfigError, match="'wrong_name'.*no_such"):
        import_custom(['wrong_name'], [tmp_path])


def test_a_defect_of_a_module_keeps_its_traceback(tmp_path):
    (tmp_path / 'defective.py').write_text('1 / 0')
    with pytest.raises(ZeroDivisionError):
        import_custom(['defective'], [tmp_path])


def test_failing_may_be_allowed(tmp_path, capsys):
    import_custom(['nowhere', 'json'], [tmp_path], allow_failed=True)
    assert "no module 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize('name', ['./mine', 'mine.py', '.mine', 'a b', ''])
def test_what_is_no_name_of_a_module(name):
    with pytest.raises(ConfigError, match='is not the name of a module'):
        import_custom([name], [])


def test_the_error_of_a_module_has_no_other_before_it(tmp_path):
    (tmp_path / 'defective_too.py').write_text('1 / 0')
    with pytest.raises(ZeroDivisionError) as caught:
        import_custom(['defective_too'], [tmp_path])
    assert caught.value.__context__ is None


@pytest.mark.parametrize('imports', [3, ['a', 3], None])
def test_no_names(imports):
    with pytest.raises(ConfigError, match='must be a list of module names'):
        import_custom(imports, [])


def test_when_a_module_is_imported(tmp_path):
    (tmp_path / 'imported_later.py').write_text('value = 3')
    sys.path.append(str(tmp_path))
    seen = []
    finders = list(sys.meta_path)
    when_imported('imported_later', lambda module: seen.append(module.value))
    assert not seen
    import imported_later  # noqa: F401

    assert seen == [3]
    importlib.reload(imported_later)
    assert seen == [3]
    assert sys.meta_path == finders
    when_imported('imported_later', lambda module: seen.append(module.value))
    assert seen == [3, 3]


def test_waiting_for_a_module_that_does_not_exist():
    when_imported('never_there', lambda module: None)
    finders = [f for f in sys.meta_path if vars(f).get('module')]
    with pytest.raises(ModuleNotFoundError, match='never_there'):
        import never_there  # noqa: F401
    assert len(finders) == 1 and finders[0] not in sys.meta_path


def test_tools_register_all_parts():
    """Whatever a config's own custom_imports are."""
    code = """
        import mmssm.apis
        from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
        assert DATASETS.get('MiniImageNetDataset'), 'dataset'
        assert MODELS.get('ChangeMambaHead'), 'head'
        assert MODELS.get('VMamba'), 'backbone'
        assert HOOKS.get('MESAHook'), 'hook'
        assert METRICS.get('ChangeMetric'), 'metric'
    """
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
        check=True,
    )
