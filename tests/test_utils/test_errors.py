import os
import subprocess
import sys

import pytest
import torch
from mmengine.registry import (
    DATA_SAMPLERS,
    HOOKS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
)
from torch.utils.data import DataLoader

from mmssm.apis.cli import run_tool
from mmssm.scans import route_indices
from mmssm.utils import CheckpointError, ConfigError
from mmssm.utils.errors import did_you_mean


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
        (dict(drop_path=0.1), ("did you mean 'drop_path_rate'",)),
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


@pytest.mark.parametrize(
    'backbone, words',
    [
        (dict(type='VMamba', out_indexes=(0,)), "did you mean 'out_indices'"),
        (dict(type='Vim', image_size=64), "did you mean 'img_size'"),
        (dict(type='LocalVim', image_size=64), "did you mean 'img_size'"),
        (dict(type='LocalVMamba', zzz=1), "'zzz'; it takes arch, directions"),
    ],
)
def test_misspelled_argument_is_named(capsys, monkeypatch, backbone, words):
    status, text = outcome(capsys, monkeypatch, lambda: MODELS.build(backbone))
    assert status == 2 and words in text and text.count('\n') == 1


@pytest.mark.parametrize(
    ('registry', 'cfg', 'words'),
    [
        (MODELS, dict(type='VMambo'), "registry; did you mean 'VMamba'?"),
        (MODELS, dict(type='Zzz'), 'registry; is it spelled right, and is de'),
        (MODELS, dict(type='mmssm.VMambo'), "mean 'VMamba'?"),
        # Some registries have spaces in their names.
        (
            OPTIM_WRAPPER_CONSTRUCTORS,
            dict(type='LayerDecayOptimWraperConstructor'),
            "mean 'LayerDecayOptimWrapperConstructor'?",
        ),
        (MODELS, dict(arch='tiny'), "no type: {'arch': 'tiny'}"),
        (
            MODELS,
            dict(type='BaseDataPreprocessor', blocking=1),
            "unexpected keyword argument 'blocking'; it takes non_bl",
        ),
        (
            HOOKS,
            dict(type='EarlyStoppingHook'),
            "required positional argument: 'monitor'; it takes monitor, rule",
        ),
        # A check of the library itself, in a subclass of ours, too.
        (
            HOOKS,
            dict(type='AtomicCheckpointHook', save_best='kappa'),
            'AtomicCheckpointHook: Cannot infer the rule for key kappa',
        ),
        (
            HOOKS,
            dict(type='CheckpointHook', save_begin=-1),
            'CheckpointHook: save_begin should not be less than 0',
        ),
        (MODELS, dict(type=3), 'type must be a str or valid type, but got'),
    ],
    ids=str,
)
def test_what_is_found_when_a_config_is_built(
    capsys, monkeypatch, registry, cfg, words
):
    status, text = outcome(capsys, monkeypatch, lambda: registry.build(cfg))
    assert status == 2 and words in text and text.count('\n') == 1
    assert text.startswith('train.py: error: ')


class Window(torch.utils.data.Sampler):
    """Python, not a check, finds what is wrong with it."""

    def __init__(self, dataset, seed, size):
        int(size)


def test_defects_while_a_config_is_built_keep_their_traceback():
    DATA_SAMPLERS.register_module(module=Window)
    try:
        cfg = dict(type='Window', dataset=1, seed=0, size='x')
        with pytest.raises(ValueError, match='invalid literal'):
            run_tool(lambda: DATA_SAMPLERS.build(cfg))
    finally:
        DATA_SAMPLERS.module_dict.pop('Window')


def test_a_package_that_must_be_installed(capsys, monkeypatch):
    error = ImportError('Please run "pip install tensorboard" to use it')
    status, text = outcome(capsys, monkeypatch, raising(error))
    assert (status, text) == (2, f'train.py: error: {error}\n')
    with pytest.raises(ImportError):
        run_tool(raising(ImportError('cannot import name x')))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('archs', "; did you mean 'arch'?"),
        ('adamw', "; did you mean 'AdamW'?"),
        ('zzz', ''),
    ],
)
def test_did_you_mean(given, expected):
    assert did_you_mean(given, iter(['arch', 'Adam', 'AdamW'])) == expected


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


class Broken(torch.utils.data.Dataset):
    """Fails in the way that it is told to."""

    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.fail()


def load(fail):
    """Read a data set in a process of its own."""
    return lambda: next(iter(DataLoader(Broken(fail), num_workers=1)))


def test_what_loading_processes_find(capsys, monkeypatch):
    def spiral():
        return route_indices('spiral', 2, 2)

    with pytest.raises(ValueError) as plain:
        spiral()
    status, text = outcome(capsys, monkeypatch, load(spiral))
    assert (status, text) == (2, f'train.py: error: {plain.value}\n')


@pytest.mark.parametrize(
    'fail', [raising(ValueError('a bug')), raising(AssertionError())]
)
def test_defects_of_loading_processes_keep_their_traceback(fail):
    with pytest.raises((ValueError, AssertionError), match='Original Trace'):
        run_tool(load(fail))


SCRIPT = """
import sys, torch.distributed as dist
from mmssm.utils import ConfigError
from mmssm.apis.cli import run_tool

def main():
    dist.init_process_group('gloo')
    if str(dist.get_rank()) in sys.argv[1]:
        raise ConfigError(sys.argv[2])

run_tool(main)
"""


@pytest.mark.parametrize('failing', ['0', '1', '01'])
def test_of_several_processes_one_speaks(failing, tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone'),
            *('--nproc-per-node=2', script, failing, 'a reason'),
        ],
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert done.stderr.count('tool.py: error: a reason') == 1


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert outcome(capsys, monkeypatch, raising(ConfigError('a reason'))) == (
        2,
        '',
    )
