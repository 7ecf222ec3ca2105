import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmssm.checkpoint import (
    allow_unsafe_loading,
    load_file,
    locate_checkpoint,
    safe_load,
)
from mmssm.utils import CheckpointError


class Creates:
    """Pickles as a call that leaves a file behind when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Reaches:
    """Pickles as ``getattr(owner, name)``."""

    def __init__(self, owner, name):
        self.target = owner, name

    def __reduce__(self):
        return getattr, self.target


@pytest.fixture
def unsafe():
    allow_unsafe_loading()
    yield
    allow_unsafe_loading(False)


def test_training_checkpoint_loads(tmp_path):
    hub = MessageHub('test_training_checkpoint_loads')
    for step in range(3):
        hub.update_scalar('train/loss', 3.0 - step)
    hub.update_info('best', np.float64(0.5))
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = dict(
        meta=dict(epoch=1, dataset_meta=dict(palette=np.zeros((2, 3), int))),
        state_dict=model.state_dict(),
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
    )
    torch.save(saved, tmp_path / 'epoch_1.pth')

    loaded = load_file(tmp_path / 'epoch_1.pth')

    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.data[0].tolist() == [3.0, 2.0, 1.0]
    assert history.statistics('mean') == 2.0
    assert loaded['message_hub']['runtime_info']['best'] == 0.5
    assert torch.equal(loaded['state_dict']['weight'], model.weight)
    exp_avg = loaded['optimizer']['state'][0]['exp_avg']
    assert torch.equal(exp_avg, optimizer.state_dict()['state'][0]['exp_avg'])


def test_names_of_numpy_1_are_understood(tmp_path):
    path = tmp_path / 'numpy1.pth'
    here = np.ndarray.__reduce__(np.zeros(1))[0].__module__
    assert here == 'numpy._core.multiarray', 'numpy 2 is expected here'
    # The same content under the module name that numpy 1 wrote.
    old = dict(a=np.arange(3.0))
    with _rewritten_pickle(here, 'numpy.core.multiarray'):
        torch.save(old, path)
    assert load_file(path)['a'].tolist() == [0.0, 1.0, 2.0]


class _rewritten_pickle:
    """Make numpy's reconstruct function pickle under another module."""

    def __init__(self, module, other):
        self.function = np._core.multiarray._reconstruct
        self.module, self.other = module, other

    def __enter__(self):
        # pickle checks that the name leads back to the function.
        fake = types.ModuleType(self.other)
        fake._reconstruct = self.function
        self.saved = sys.modules.get(self.other)
        sys.modules[self.other] = fake
        self.function.__module__ = self.other

    def __exit__(self, *_):
        self.function.__module__ = self.module
        del sys.modules[self.other]
        if self.saved is not None:
            sys.modules[self.other] = self.saved


def test_config_of_an_original_loads_as_a_dict(tmp_path, monkeypatch):
    """yacs need not be installed, and its class is not used if it is."""
    yacs = types.ModuleType('yacs.config')

    class CfgNode(dict):
        def __init__(self, *args):
            super().__init__(*args)
            self.__dict__['__immutable__'] = True

        def __setitem__(self, key, value):
            raise AssertionError('the class of the file was run')

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    yacs.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs.config', yacs)
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    config = CfgNode(dict(BASE=[''], MODEL=CfgNode(dict(NAME='t', DIM=(1,)))))
    torch.save(dict(model={}, config=config), tmp_path / 'released.pth')

    for installed in (True, False):
        if not installed:
            monkeypatch.undo()
        loaded = load_file(tmp_path / 'released.pth')['config']
        assert loaded == dict(BASE=[''], MODEL=dict(NAME='t', DIM=(1,)))
        assert not isinstance(loaded, CfgNode)


def test_forbidden_global_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / 'bad.pth', tmp_path / 'it ran'
    torch.save(dict(state_dict={}, extra=Creates(trace)), path)

    with pytest.raises(CheckpointError) as caught:
        load_file(path)

    assert not trace.exists()
    message = str(caught.value)
    assert 'bad.pth' in message and 'mkdir' in message
    assert '--unsafe-load' in message and '\n' not in message


def test_unsafe_loading_runs_what_was_refused(tmp_path, unsafe):
    path, trace = tmp_path / 'bad.pth', tmp_path / 'it ran'
    torch.save(dict(extra=Creates(trace)), path)
    load_file(path)
    assert trace.is_dir()


@pytest.mark.parametrize(
    'owner, name',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, '__subclasses__'),
        (HistoryBuffer, 'register_statistics'),
        (np.ndarray, 'tofile'),
        (HistoryBuffer(), 'mean'),
    ],
)
def test_getattr_reaches_nothing_else(tmp_path, owner, name):
    path = tmp_path / 'bad.pth'
    torch.save(dict(extra=Reaches(owner, name)), path)
    with pytest.raises(CheckpointError, match='getattr'):
        load_file(path)


def test_statistics_are_not_taken_from_the_file(tmp_path):
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    before = dict(HistoryBuffer._statistics_methods)
    state = dict(buffer.__getstate__())
    state['statistics_methods'] = dict(before, mean=HistoryBuffer.max)

    class Poisoned(HistoryBuffer):
        def __reduce__(self):
            return HistoryBuffer, (), state

    torch.save(dict(hub=Poisoned()), tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')['hub']
    assert loaded.data[0].tolist() == [1.0, 3.0]
    assert loaded.statistics('mean') == 2.0
    assert HistoryBuffer._statistics_methods == before


def test_statistics_work_when_the_file_is_the_first_to_need_them(tmp_path):
    """As on a second process that resumes before it has logged anything."""
    path = tmp_path / 'log.pth'
    torch.save(HistoryBuffer([1.0, 3.0], [1, 1]), path)
    code = (
        'import sys; from mmssm.checkpoint import load_file; '
        "assert load_file(sys.argv[1]).statistics('mean') == 2"
    )
    subprocess.run([sys.executable, '-c', code, str(path)], check=True)


def test_object_arrays_are_refused(tmp_path):
    path = tmp_path / 'objects.pth'
    torch.save(dict(a=np.array([{}, []], dtype=object)), path)
    with pytest.raises(CheckpointError, match='--unsafe-load'):
        load_file(path)


def test_globals_are_allowed_only_while_loading(tmp_path):
    torch.save(dict(a=1), tmp_path / 'a.pth')
    load_file(tmp_path / 'a.pth')
    allowed = torch.serialization.get_safe_globals()
    assert HistoryBuffer not in allowed
    assert not any(isinstance(entry, tuple) for entry in allowed)


@pytest.mark.parametrize(
    'content, cause',
    [
        (None, 'does not exist'),
        (b'', r'empty \(0 bytes\)'),
        (b'just some text, no checkpoint\n', 'not a checkpoint'),
        (b'<!DOCTYPE html><html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'LFS'),
        (b'PK\x03\x04 and then nothing', 'cut short'),
        (pickle.dumps(dict(a=[1] * 100))[:50], 'cut short'),
    ],
)
def test_unusable_file(tmp_path, content, cause):
    path = tmp_path / 'some file.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=cause) as caught:
        load_file(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('share', [0.999, 0.5, 0.01])
def test_truncated_checkpoint(tmp_path, legacy, share):
    path = tmp_path / 'cut.pth'
    torch.save(
        dict(state_dict=dict(w=torch.ones(5000))),
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match='cut short'):
        load_file(path)


def test_folder(tmp_path):
    with pytest.raises(CheckpointError, match='is a folder'):
        load_file(tmp_path)


def test_no_dtype_that_holds_objects():
    assert not any(
        kind in (np.dtypes.ObjectDType, np.dtypes.VoidDType)
        for kind in safe_load._NUMERIC_DTYPES
    )


def test_locating_files_and_addresses(tmp_path, monkeypatch):
    file = tmp_path / 'a.pth'
    file.write_bytes(b'x')
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in (file, str(file), f'file://{file}', '~/a.pth'):
        assert locate_checkpoint(name) == str(file)
    address = 'https://example.org/a.pth'
    assert locate_checkpoint(address) == address
    with pytest.raises(CheckpointError, match='b.pth does not exist'):
        locate_checkpoint(f'file://{tmp_path}/b.pth')
