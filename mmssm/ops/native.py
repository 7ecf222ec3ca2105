"""Find the native extension, and say once what to do if it is missing."""

import importlib
import warnings
from functools import cache

import torch

HOW_TO_BUILD = (
    'build it with `pip install --no-build-isolation -e .` in the mmssm '
    'repository'
)


def _load_extension() -> str:
    """Import the extension; return why it cannot be used ('' if it can)."""
    try:
        importlib.import_module('mmssm._ext')
    except ImportError as error:
        return str(error)
    return ''


def _built_for() -> frozenset:
    """Device types whose kernels the extension holds."""
    if _PROBLEM:
        return frozenset()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    devices = {'cpu': 'CPU', 'cuda': 'CUDA'}
    return frozenset(
        device
        for device, key in devices.items()
        if has_kernel('mmssm::routed_selective_scan', key)
    ) | {'meta'}


_PROBLEM = _load_extension()
# A constant, not a look-up per call: compilers trace through its readers.
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


def use_native(tensor: torch.Tensor) -> bool:
    """Whether ops run natively on ``tensor``'s device.

    Warns, once per device type, when they cannot.
    """
    if tensor.device.type in _DEVICES:
        return True
    if not torch.compiler.is_compiling():
        _warn_slow(tensor.device.type)
    return False
