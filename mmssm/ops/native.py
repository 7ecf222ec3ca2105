"""Load the native extension, and say once what to do if that fails."""

import json
import mmap
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

HOW_TO_BUILD = (
    'build it with `pip install --no-build-isolation -e .` in the mmssm '
    'repository'
)
_DISPATCH_KEYS = {'cpu': 'CPU', 'cuda': 'CUDA'}


@dataclass(frozen=True)
class BuildInfo:
    """What an extension was built for, and with.

    Attributes:
        torch (str): PyTorch's version, e.g. '2.11.0'.
        cuda (str): The CUDA toolkit's version, e.g. '13.0'; '' where there
            are CPU kernels only.
        architectures (tuple[str, ...]): Compute capabilities of the CUDA
            kernels, as in ``TORCH_CUDA_ARCH_LIST``: '9.0' has machine code,
            '9.0+PTX' also code that later GPUs can translate.
        compiler (str): The C++ compiler's name and version.
    """

    torch: str
    cuda: str
    architectures: tuple[str, ...]
    compiler: str


def extension_path() -> Path:
    """Where the extension is, or would be."""
    name = '_ext.pyd' if os.name == 'nt' else '_ext.so'
    return Path(__file__).parents[1] / name


def build_info(path: Path | None = None) -> BuildInfo | None:
    """What an extension was built for, read from its file (not loaded).

    Args:
        path (Path, optional): The file. Defaults to :func:`extension_path`.

    Returns:
        BuildInfo | None: None if there is no file, or it says nothing.
    """
    path = path or extension_path()
    if not path.is_file() or not path.stat().st_size:
        return None
    with (
        path.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(b'mmssm-build{')
        if start < 0:
            return None
        start += len(b'mmssm-build')
        text = content[start : content.find(b'\0', start)]
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _parse(found: dict[str, Any]) -> BuildInfo:
    version = found['cuda']
    return BuildInfo(
        torch=found['torch'],
        cuda=f'{version // 1000}.{version % 1000 // 10}' if version else '',
        architectures=tuple(filter(None, found['architectures'].split(','))),
        compiler=found['compiler'],
    )


def _mismatch(build: BuildInfo) -> str:
    """Why the running PyTorch cannot use an extension; '' if it can.

    PyTorch's C++ interface changes from one minor version to the next.
    """
    if build.torch.split('.')[:2] != torch.__version__.split('.')[:2]:
        return f'it was built for torch {build.torch}, not {torch.__version__}'
    have = torch.version.cuda or ''
    if build.cuda and build.cuda.split('.')[0] != have.split('.')[0]:
        return (
            f'it was built for CUDA {build.cuda}, torch {torch.__version__} '
            + (f'is for CUDA {have}' if have else 'has none')
        )
    return ''


def _load_extension() -> str:
    """Load the extension; return why it cannot be used ('' if it can)."""
    path = extension_path()
    if not path.is_file():
        return f'there is no {path}'
    try:
        build = build_info()
        if build is None:
            return f'{path} is no extension of mmssm, or a damaged one'
        mismatch = _mismatch(build)
        if mismatch:
            return f'{path} does not fit: {mismatch}'
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        return f'{path} cannot be loaded: {" ".join(str(error).split())}'
    return ''


def _built_for() -> frozenset[str]:
    """Device types whose kernels the extension holds."""
    if _PROBLEM:
        return frozenset()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return frozenset(
        device
        for device, key in _DISPATCH_KEYS.items()
        if has_kernel('mmssm::routed_selective_scan', key)
    ) | {'meta'}


_PROBLEM = _load_extension()
# A constant, not a lookup per call: compilers trace through its readers.
_DEVICES = _built_for()


@cache
def _warn_slow(device_type: str) -> None:
    if _PROBLEM:
        cause, remedy = _PROBLEM, HOW_TO_BUILD
    else:
        cause = f'the extension has no {device_type} kernels'
        remedy = (
            'build mmssm again where nvcc is, with FORCE_CUDA=1'
            if device_type == 'cuda'
            else 'run on the CPU, where it is native, if that is too slow'
        )
    warnings.warn(
        f'mmssm: no native op for {device_type} ({cause}); the slow PyTorch '
        f'references serve instead: {remedy}.',
        stacklevel=4,
    )


def is_available() -> bool:
    """Whether the native extension was built and can be loaded."""
    return not _PROBLEM


def problem() -> str:
    """Why the native extension cannot be used, one line; '' if it can."""
    return _PROBLEM


def has_kernels(device_type: str) -> bool:
    """Whether ops run natively on devices of a type ('cpu', 'cuda')."""
    return device_type in _DEVICES


def use_native(tensor: torch.Tensor) -> bool:
    """Whether ops run natively on ``tensor``'s device.

    Warns, once per device type, when they cannot.
    """
    if tensor.device.type in _DEVICES:
        return True
    if not torch.compiler.is_compiling():
        _warn_slow(tensor.device.type)
    return False


def missing_architecture(device_index: int = 0) -> str:
    """Why a GPU cannot run the extension's kernels, one line; '' if it can.

    Args:
        device_index (int): The GPU's number. Defaults to 0.
    """
    build = build_info()
    if build is None or not build.architectures:
        return ''
    capability = torch.cuda.get_device_capability(device_index)
    if any(_runs_on(capability, name) for name in build.architectures):
        return ''
    major, minor = capability
    return (
        f'{torch.cuda.get_device_name(device_index)} has compute capability '
        f'{major}.{minor}, the extension holds kernels for '
        f'{", ".join(build.architectures)} only: build it again with '
        f'TORCH_CUDA_ARCH_LIST={major}.{minor}'
    )


def _runs_on(capability: tuple[int, int], architecture: str) -> bool:
    """Machine code runs on later minor versions, PTX on all later ones."""
    parsed = re.fullmatch(r'(\d+)\.(\d+)([af]?)(\+PTX)?', architecture)
    if parsed is None:  # a generation's name, which PyTorch also knows
        return True
    built = int(parsed[1]), int(parsed[2])
    if parsed[3] == 'a':
        return capability == built
    later = capability >= built
    return later and (bool(parsed[4]) or capability[0] == built[0])
