"""Build and install mmssm.

The native op is built with the package. What is built, and how:

- a CUDA toolkit and a GPU (or ``FORCE_CUDA=1``): CPU and CUDA kernels;
- otherwise: CPU kernels;
- ``MMSSM_WITH_OPS=0``: no native code, the PyTorch references serve.

``MAX_JOBS`` sets the number of compiler processes (default: 2),
``TORCH_CUDA_ARCH_LIST`` the GPU architectures.
"""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    names = {}
    exec((ROOT / 'mmssm/version.py').read_text(), names)
    return names['__version__']


def read_requirements(name: str) -> list:
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [x for x in lines if x and not x.startswith('#')]


def native_extension() -> dict:
    """setup()'s arguments for the native op; empty for pure Python."""
    if os.getenv('MMSSM_WITH_OPS', '1') == '0':
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            'mmssm builds its op against the torch that will run it: install '
            'torch first (pip install -r requirements/build.txt), then build '
            'with --no-build-isolation; or set MMSSM_WITH_OPS=0 for pure '
            f'Python ({error})'
        ) from error

    os.environ.setdefault('MAX_JOBS', '2')
    cuda_sources = sorted(ROOT.glob('csrc/cuda/*.cu'))
    with_cuda = cpp_extension.CUDA_HOME is not None and (
        torch.cuda.is_available() or os.getenv('FORCE_CUDA') == '1'
    )
    if with_cuda and not cuda_sources:
        print('mmssm: no CUDA kernels in csrc/cuda, building for the CPU only')
        with_cuda = False
    sources = sorted(ROOT.glob('csrc/*.cpp')) + sorted(
        p for p in ROOT.glob('csrc/*/*.cpp') if p.parent.name != 'cuda'
    )
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
    if sys.platform == 'linux':
        # at::parallel_for is a header: without the flag it runs one thread,
        # silently. Not a link flag: torch's own OpenMP library must serve.
        host_flags.append('-fopenmp')
    options = dict(extra_compile_args=dict(cxx=host_flags))
    extension = cpp_extension.CppExtension
    if with_cuda:
        extension = cpp_extension.CUDAExtension
        sources += cuda_sources
        options['extra_compile_args']['nvcc'] = ['-O3']
    return dict(
        ext_modules=[
            extension(
                'mmssm._ext',
                [str(p.relative_to(ROOT)) for p in sources],
                **options,
            )
        ],
        cmdclass=dict(build_ext=cpp_extension.BuildExtension),
    )


setup(
    name='mmssm',
    version=read_version(),
    description='Visual state-space models for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmssm', 'mmssm.*']),
    python_requires='>=3.10',
    install_requires=read_requirements('runtime.txt'),
    extras_require=dict(
        mminstall=read_requirements('mminstall.txt'),
        tests=read_requirements('tests.txt'),
    ),
    zip_safe=False,
    **native_extension(),
)
