import json
import multiprocessing
import os
import time

import pytest

from mmssm.datasets.mini import build
from mmssm.datasets.mini.build import STAMP, ensure_root


def write_files(folder):
    (folder / 'sub').mkdir()
    (folder / 'a.txt').write_text('first')
    (folder / 'sub' / 'b.txt').write_text('second')


def write_slowly(folder):
    (folder / 'a.txt').write_text(str(os.getpid()))
    time.sleep(0.5)
    (folder / 'b.txt').write_text(str(os.getpid()))


def build_slowly(root, barrier, results):
    barrier.wait()
    results.put(ensure_root(root, write_slowly))


def contents(root):
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob('*')
        if path.is_file() and path.name != STAMP
    }


GOOD = {'a.txt': 'first', 'sub/b.txt': 'second'}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'data' / 'set'
    assert ensure_root(folder, write_files)
    assert contents(folder) == GOOD
    return folder


def refuse_to_write(folder):
    raise AssertionError('the set was complete')


def test_complete_root_is_kept(root):
    assert not ensure_root(root, refuse_to_write)


@pytest.mark.parametrize(
    'damage',
    [
        lambda root: (root / 'a.txt').unlink(),
        lambda root: (root / 'sub' / 'b.txt').write_text('cut'),
        lambda root: (root / STAMP).write_text('{"version": '),
        lambda root: (root / STAMP).write_text('[]'),
        lambda root: (root / 'stray.txt').write_text('not from here'),
    ],
)
def test_damaged_root_is_rebuilt(root, damage):
    damage(root)
    assert ensure_root(root, write_files)
    assert contents(root) == GOOD
    assert not ensure_root(root, refuse_to_write)


def test_root_of_other_drawing_code_is_rebuilt(root, monkeypatch):
    stamp = json.loads((root / STAMP).read_text())
    assert stamp['version'] == build._version()
    monkeypatch.setattr(build, '_version', lambda: 'changed')
    assert ensure_root(root, write_files)
    assert json.loads((root / STAMP).read_text())['version'] == 'changed'


def test_version_follows_the_drawing_code(tmp_path, monkeypatch):
    source = tmp_path / 'draw.py'
    source.write_text('SIZE = 1')
    monkeypatch.setattr(build, 'DRAWING_SOURCES', [source])
    before = build._version()
    source.write_text('SIZE = 2')
    assert build._version() != before


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='not built by mmssm'):
        ensure_root(tmp_path, write_files)
    assert contents(tmp_path) == {'thesis.txt': 'mine'}


def test_failed_build_leaves_nothing_behind(tmp_path):
    def fail(folder):
        (folder / 'a.txt').write_text('half')
        raise OSError('disk full')

    root = tmp_path / 'set'
    with pytest.raises(OSError, match='disk full'):
        ensure_root(root, fail)
    assert [path.name for path in tmp_path.iterdir()] == ['.set.lock']


def test_scratch_of_a_killed_build_is_cleared(tmp_path):
    left_over = tmp_path / '.set.building-killed'
    left_over.mkdir()
    (left_over / 'half.txt').write_text('half')
    assert ensure_root(tmp_path / 'set', write_files)
    assert not left_over.exists()


@pytest.mark.parametrize('stale', [False, True])
def test_two_processes_build_one_root(tmp_path, stale):
    root = tmp_path / 'set'
    if stale:
        ensure_root(root, write_files)
        (root / 'a.txt').unlink()
    context = multiprocessing.get_context('fork')
    barrier, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=build_slowly, args=(root, barrier, results))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    built = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert built == [False, True]
    files = contents(root)
    assert sorted(files) == ['a.txt', 'b.txt']
    assert files['a.txt'] == files['b.txt'] != ''
    assert not list(tmp_path.glob('.set.building-*'))
