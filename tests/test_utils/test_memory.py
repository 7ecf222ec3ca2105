"""Freed memory is kept, so that tensors do not fault their pages in again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from mmssm.utils import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def make(count):
    for _ in range(count):
        torch.ones(64 * 2**20 // 4)

make(16)  # the first ones may not fit where the ones before them were
before = faults()
make(4)
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='a setting of glibc'
)
def test_a_large_tensor_reuses_pages():
    """64 MiB are 16384 pages of 4 KiB, or 32 of 2 MiB."""

    def faults(mode):
        result = subprocess.run(
            [sys.executable, '-c', PROGRAM, mode],
            check=True,
            capture_output=True,
            text=True,
        )
        return int(result.stdout)

    kept, plain = faults('keep'), faults('plain')
    assert kept < plain / 2


def test_other_c_libraries_are_left_alone(monkeypatch):
    from mmssm.utils import memory

    monkeypatch.setattr(platform, 'libc_ver', lambda: ('musl', '1.2'))
    assert not memory.keep_freed_memory()
