import sys

import pytest
from mmengine.registry import MODELS

from mmssm.checkpoint import CheckpointError
from mmssm.engine import ConfigError, run_tool
from mmssm.scans import route_indices


def outcome(capsys, monkeypatch, main):
    """Exit status and stderr of a tool whose body is ``main``."""
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])
    with pytest.raises(SystemExit) as stopped:
        run_tool(main)
    return stopped.value.code, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    'error',
    [
        ConfigError('a reason'),
        CheckpointError('a\n  reason'),
    ],
)
def test_one_line(capsys, monkeypatch, error):
    assert outcome(capsys, monkeypatch, raising(error)) == (
        2,
        'train.py: error: a reason\n',
    )


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(arch='huge'), ('huge', 'tiny-s1l8')),
        (dict(drop_path=0.1), ('drop_path_rate',)),
        (dict(out_indices=(9,)), ('out_indices', '9')),
        (dict(arch=dict(depth=(1, 1))), ('depth', 'depths')),
    ],
)
def test_bad_argument_of_a_backbone(capsys, monkeypatch, kwargs, words):
    status, text = outcome(
        capsys,
        monkeypatch,
        lambda: MODELS.build(dict(type='VMamba', **kwargs)),
    )
    assert status == 2
    assert text.startswith('train.py: error: ') and text.count('\n') == 1
    assert all(word in text for word in words)


def test_what_the_registry_finds(capsys, monkeypatch):
    status, text = outcome(
        capsys, monkeypatch, lambda: MODELS.build(dict(type='VMambo'))
    )
    assert status == 2 and 'VMambo is not in' in text
    status, text = outcome(
        capsys,
        monkeypatch,
        lambda: MODELS.build(dict(type='BaseDataPreprocessor', blocking=1)),
    )
    assert status == 2
    assert "unexpected keyword argument 'blocking'; it takes non_bl" in text


@pytest.mark.parametrize(
    'main',
    [
        raising(ValueError('a bug outside mmssm')),
        raising(KeyError('a bug')),
        lambda: route_indices('h', None, 1),
    ],
)
def test_defects_keep_their_traceback(main):
    with pytest.raises((ValueError, KeyError, TypeError)):
        run_tool(main)


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert outcome(capsys, monkeypatch, raising(ConfigError('a reason'))) == (
        2,
        '',
    )
