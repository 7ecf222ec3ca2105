"""The CUDA kernels, compiled for a CPU by tests/cuda_emulator."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='session')
def emulator():
    """Compile the emulated ops, about 60 s; later runs find them built."""
    here = ROOT / 'tests/cuda_emulator'
    folder = ROOT / 'build/cuda_emulator'
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('MAX_JOBS', '2')
    sources = [
        *sorted(here.glob('*.cpp')),
        *sorted(ROOT.glob('csrc/cuda/*.cpp')),
        *sorted(ROOT.glob('csrc/common/*.cpp')),
    ]
    cpp_extension.load(
        'mmssm_emulated',
        [str(p) for p in sources if p.name != 'registration.cpp'],
        extra_cflags=['-O2', '-g0', '-Wno-unknown-pragmas'],
        extra_include_paths=[str(here / 'include')],
        build_directory=str(folder),
        is_python_module=False,
    )
    return torch.ops.mmssm_emulated


@pytest.fixture
def ops(emulator):
    yield emulator
    emulator.set_plan(0, 0, 0)
    emulator.set_fusion_ranges(0)
    emulator.set_order(0, False)
