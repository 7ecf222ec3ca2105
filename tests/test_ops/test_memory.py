"""Large tensors take the memory of freed ones."""

import subprocess
import sys

import pytest
import torch

from mmssm.ops import native
from mmssm.ops.memory import keep_freed_memory

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason='needs the native extension'
)
MIB = 2**20


def run(program, *args):
    """The number that a program prints."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program, *args],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(result.stdout)


PAGES = """
import resource, sys, torch
from mmssm.ops.memory import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.ones(64 * 2**18)
before = faults()
for _ in range(4):
    torch.ones(64 * 2**18)
print(faults() - before)
"""


def test_a_large_tensor_reuses_pages():
    """64 MiB are 16384 pages of 4 KiB, or 32 of 2 MiB."""
    assert run(PAGES, 'keep') < run(PAGES, 'plain') / 4


GROWTH = """
import resource, torch
from mmssm.ops.memory import keep_freed_memory
assert keep_freed_memory()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10

before, results = peak(), []
for i in range(40):
    torch.ones(64 * 2**18)
    # A result, which might take a part of the memory that was just freed.
    results.append(bytearray(300_000))
print(peak() - before)
"""


def test_results_of_a_long_run_do_not_make_it_grow():
    """40 results are 12 MB; 40 tensors would be 2.6 GB."""
    assert run(GROWTH) < 200


SIZES = """
import resource, torch
from mmssm.ops.memory import keep_freed_memory
assert keep_freed_memory()
torch.ops.mmssm._keep_freed_memory(64 * 2**20)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10

before = peak()
for i in range(8):
    torch.ones((20 + 4 * i) * 2**18)
print(peak() - before)
"""


def test_no_more_than_the_limit_is_kept():
    """The tensors of all sizes are 272 MiB; 64 are kept, and 48 in use."""
    assert run(SIZES) < 160


@pytest.fixture
def keeping():
    assert keep_freed_memory()


@pytest.mark.usefixtures('keeping')
@pytest.mark.parametrize('size', [0, 1, MIB - 4, MIB, MIB + 4, 9 * MIB + 4])
def test_tensors_of_all_sizes(size):
    for value in (1.0, 2.0):
        x = torch.full((size // 4,), value)
        y = x.clone()
        x.resize_(x.numel() + MIB)
        assert x.data_ptr() % 64 == 0
        assert torch.equal(x[: len(y)], y)
        assert (y == value).all()


LIMITED = """
import resource, torch
from mmssm.ops.memory import keep_freed_memory
assert keep_freed_memory()
size = int(open('/proc/self/statm').read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, -1))
torch.ones(600 * 2**18)
torch.ones(700 * 2**18)
print(1)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_kept_memory_is_given_back_where_there_is_no_more():
    assert run(LIMITED) == 1


CONVOLUTIONS = """
import torch
from mmssm.ops.memory import keep_freed_memory
convs = [torch.nn.Conv2d(c, 2 * c, 3) for c in (4, 256)]
maps = [torch.rand(1, c, 64, 64) for c in (4, 256)]
before = [conv(x) for conv, x in zip(convs, maps)]
assert keep_freed_memory()
print(all(
    torch.equal(conv(x), want)
    for _ in range(3)
    for conv, x, want in zip(convs, maps, before)
) + 0)
"""


def test_convolutions():
    """oneDNN allocates and frees without tensors, and may have before."""
    assert run(CONVOLUTIONS) == 1


@pytest.mark.usefixtures('keeping')
def test_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    def work(i):
        for _ in range(50):
            x = torch.full((MIB // 2 + i,), float(i))
            if not (x.clone() == i).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_without_the_extension(monkeypatch):
    monkeypatch.setattr(torch.ops, 'mmssm', object())
    assert not keep_freed_memory()
