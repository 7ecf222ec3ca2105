"""Find the native extension, and say once what to do if it is missing."""

import importlib
import warnings
from functools import lru_cache

import torch

HOW_TO_BUILD = (
    'build it with `pip install --no-build-isolation -e .` in the mmssm '
    'repository (a GPU: set FORCE_CUDA=1 and CUDA_HOME)'
)


def _load_extension() -> str:
    """Import the extension; return why it cannot be used ('' if it can)."""
    try:
        importlib.import_module('mmssm._ext')
    except ImportError as error:
        return str(error)
    return ''


_PROBLEM = _load_extension()


@lru_cache(maxsize=None)
def _has_kernel(op: str, device_type: str) -> bool:
    """Whether a kernel of ``op`` exists for tensors on this device type."""
    key = {'cpu': 'CPU', 'cuda': 'CUDA'}.get(device_type)
    if _PROBLEM or key is None:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f'mmssm::{op}', key)


@lru_cache(maxsize=None)
def _warn_slow(op: str, device_type: str) -> None:
    cause = _PROBLEM or f'it was built without {device_type} kernels'
    warnings.warn(
        f'mmssm: no native {op} on {device_type} ({cause}); the slow PyTorch '
        f'reference serves instead: {HOW_TO_BUILD}.',
        stacklevel=4,
    )


def use_native(op: str, tensor: torch.Tensor) -> bool:
    """Whether ``op`` should run natively on ``tensor``'s device.

    Warns, once per op and device type, when it cannot.
    """
    device_type = tensor.device.type
    if device_type == 'meta' and not _PROBLEM:
        return True
    if _has_kernel(op, device_type):
        return True
    if not torch.compiler.is_compiling():
        _warn_slow(op, device_type)
    return False


def is_available() -> bool:
    """Whether the native extension was built and can be loaded."""
    return not _PROBLEM
