"""Build the native op with the package, which pyproject.toml describes.

What is built, and how:

- a CUDA toolkit and a GPU (or ``FORCE_CUDA=1``): CPU and CUDA kernels;
- otherwise: CPU kernels;
- ``MMSSM_WITH_OPS=0``: no native code, the PyTorch references serve.

It is one library, ``mmssm/_ext.so``, with nothing of Python in it: what was
built under one version of Python loads under the others, and from C++.

``MAX_JOBS`` sets the number of compiler processes (default: 2),
``TORCH_CUDA_ARCH_LIST`` the GPU architectures (default: those of the GPUs
here; without one, all that the toolkit knows), ``CUDA_HOME`` the toolkit's
folder.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent


def find_toolkit() -> str:
    """The CUDA toolkit's own folder, '' if there is none."""
    given = os.getenv('CUDA_HOME') or os.getenv('CUDA_PATH')
    places = [given] if given else ['/usr/local/cuda']
    nvcc = shutil.which('nvcc')
    if nvcc and not given:
        # A wrapper may stand elsewhere; nvcc itself knows where it lies.
        steps = subprocess.run(
            [nvcc, '--dryrun', 'x.cu'], capture_output=True, text=True
        )
        places[:0] = [
            str(Path(found).parent)
            for found in re.findall(r'_HERE_=(.+)', steps.stderr)
        ]
    for place in places:
        if Path(place, 'include', 'cuda_runtime.h').exists():
            return place
    if given:
        raise SystemExit(
            f'mmssm: CUDA_HOME={given} holds no include/cuda_runtime.h; set '
            'it to the folder of a whole CUDA toolkit, or unset it'
        )
    return ''


def use_cuda(torch) -> bool:
    """Whether to build CUDA kernels; points torch to the toolkit if so."""
    forced = os.getenv('FORCE_CUDA') == '1'
    if not forced and not torch.cuda.is_available():
        return False
    if torch.version.cuda is None:
        if not forced:
            return False  # a GPU of another maker
        raise SystemExit(
            f'mmssm: FORCE_CUDA=1, but torch {torch.__version__} is built '
            'without CUDA; install a CUDA build of torch'
        )
    home = find_toolkit()
    if not home and forced:
        raise SystemExit(
            'mmssm: FORCE_CUDA=1, but no CUDA toolkit is found (nvcc and '
            'include/cuda_runtime.h); install it and set CUDA_HOME'
        )
    if not home:
        print('mmssm: no CUDA toolkit found, building for the CPU only')
        return False
    os.environ['CUDA_HOME'] = home
    if not os.getenv('TORCH_CUDA_ARCH_LIST'):
        os.environ['TORCH_CUDA_ARCH_LIST'] = (
            those_here(torch)
            if torch.cuda.is_available()
            else all_of_toolkit(home)
        )
    return True


def those_here(torch) -> str:
    """The architectures of this machine's GPUs."""
    found = {
        torch.cuda.get_device_capability(index)
        for index in range(torch.cuda.device_count())
    }
    names = [f'{major}.{minor}' for major, minor in sorted(found)]
    return ';'.join(names) + '+PTX'


def all_of_toolkit(home: str) -> str:
    """From 7.5 on, the first of each generation: it serves the others."""
    nvcc = Path(home, 'bin', 'nvcc')
    listed = subprocess.run(
        [nvcc, '--list-gpu-arch'], capture_output=True, text=True, check=True
    )
    first = {}
    for number in sorted(map(int, re.findall(r'_(\d+)', listed.stdout))):
        if number >= 75:
            first.setdefault(number // 10, number % 10)
    names = [f'{major}.{minor}' for major, minor in first.items()]
    return ';'.join(names) + '+PTX'


def native_extension() -> dict:
    """setup()'s arguments for the native op; empty for pure Python."""
    if os.getenv('MMSSM_WITH_OPS', '1') == '0':
        return {}
    try:
        import torch

        with_cuda = use_cuda(torch)
        # Reads CUDA_HOME when it is imported.
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            'mmssm builds its op against the torch that will run it: install '
            'torch first (pip install -r requirements/build.txt), then build '
            'with --no-build-isolation; or set MMSSM_WITH_OPS=0 for pure '
            f'Python ({error})'
        ) from error

    os.environ.setdefault('MAX_JOBS', '2')
    # Each op has a folder; its CUDA sources are named cuda*.
    sources = [
        path
        for path in sorted(ROOT.glob('csrc/**/*.c*'))
        if path.suffix in ('.cpp', '.cu')
        and (with_cuda or not path.name.startswith('cuda'))
    ]
    host_flags = (
        ['/O2']
        if os.name == 'nt'
        else [
            '-O3',
            '-g0',  # debug symbols double the compile time
            # Let the compiler turn branches on floats into vector selects.
            '-fno-math-errno',
            '-fno-trapping-math',
        ]
    )
    if sys.platform == 'linux' and 'clang' not in os.getenv('CXX', ''):
        # at::parallel_for is a header: without the flag it runs one thread,
        # silently. Not a link flag: torch's own OpenMP library must serve,
        # which is GCC's; what Clang compiles would ask for another one.
        host_flags.append('-fopenmp')
    options = dict(
        extra_compile_args=dict(cxx=host_flags),
        # No libtorch_python: nothing in it is Python's.
        py_limited_api=True,
    )
    extension = cpp_extension.CppExtension
    if with_cuda:
        extension = cpp_extension.CUDAExtension
        options['extra_compile_args']['nvcc'] = ['-O3']
        architectures = re.split('[; ]+', os.environ['TORCH_CUDA_ARCH_LIST'])
        options['define_macros'] = [
            ('MMSSM_CUDA_ARCHITECTURES', ','.join(architectures))
        ]
    return dict(
        ext_modules=[
            extension(
                'mmssm._ext',
                [str(p.relative_to(ROOT)) for p in sources],
                **options,
            )
        ],
        cmdclass=dict(
            # mmssm/_ext.so: a library that any Python loads, and C++ too.
            build_ext=cpp_extension.BuildExtension.with_options(
                no_python_abi_suffix=True
            ),
            bdist_wheel=WheelForAnyPython,
        ),
    )


class WheelForAnyPython(bdist_wheel):
    """A wheel for one platform and all versions of Python."""

    def get_tag(self) -> tuple:
        """(Python, ABI, platform) as file names have them."""
        return 'py3', 'none', super().get_tag()[2]


setup(**native_extension())
