"""The CUDA kernels, compiled for a CPU by tests/cuda_emulator."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[2]


def named_by_folder(source: Path, folder: Path) -> str:
    """A file that includes it: objects are named after files alone."""
    path = folder / f'{source.parent.name}_{source.name}'
    text = f'#include "{source}"\n'
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


@pytest.fixture(scope='session')
def emulator():
    """Compile the emulated ops, about 60 s; later runs find them built."""
    here = ROOT / 'tests/cuda_emulator'
    folder = ROOT / 'build/cuda_emulator'
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('MAX_JOBS', '2')
    sources = [
        ROOT / 'csrc/ops.cpp',
        ROOT / 'csrc/common/cuda_device.cpp',
        ROOT / 'csrc/common/kept_memory.cpp',
        *ROOT.glob('csrc/*/inputs.cpp'),
        *ROOT.glob('csrc/*/grads.cpp'),
        *ROOT.glob('csrc/*/cuda.cpp'),
        *ROOT.glob('csrc/*/cuda_plan.cpp'),
    ]
    flags = ['-O2', '-g0', '-Wno-unknown-pragmas']
    flags += ['-DMMSSM_LIBRARY=mmssm_emulated', '-DMMSSM_CUDA_KEY=CPU']
    cpp_extension.load(
        'mmssm_emulated',
        [
            *map(str, sorted(here.glob('*.cpp'))),
            *(named_by_folder(path, folder) for path in sources),
        ],
        extra_cflags=flags,
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
