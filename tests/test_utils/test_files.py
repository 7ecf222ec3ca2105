import os

import pytest

from mmssm.utils import atomic_write


def test_writes_and_replaces(tmp_path):
    path = tmp_path / 'new folder' / 'file'
    for content in (b'one', b'two'):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ['file']


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'old')
    with pytest.raises(OSError, match='disk full'):
        with atomic_write(path) as file:
            file.write(b'half of the n')
            raise OSError('disk full')
    assert path.read_bytes() == b'old'
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_name_appears_last(tmp_path, monkeypatch):
    """The content is on the disk before the file has its name."""
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(
        os, 'fsync', lambda fd: (events.append('fsync'), fsync(fd))
    )
    monkeypatch.setattr(
        os, 'replace', lambda a, b: (events.append('replace'), replace(a, b))
    )
    with atomic_write(tmp_path / 'file') as file:
        file.write(b'new')
        assert not (tmp_path / 'file').exists()
    assert events[:2] == ['fsync', 'replace']
