"""Describe the environment, and find what keeps the ops from running."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence

import torch
from mmengine.utils.dl_utils import collect_env

import mmssm
from mmssm.analysis.benchmark.measure import processor
from mmssm.ops import native

# With the names of their distributions; mmcv-lite has no compiled ops.
LIBRARIES = {
    'mmengine': ['mmengine'],
    'mmcv': ['mmcv', 'mmcv-lite'],
    'mmdet': ['mmdet'],
    'mmsegmentation': ['mmsegmentation'],
    'mmpretrain': ['mmpretrain'],
}


def environment() -> dict[str, str]:
    """Versions and devices, by name, in the order to print them."""
    found = collect_env()
    return {
        'mmssm': mmssm.__version__,
        'extension': _extension(),
        'torch': f'{torch.__version__} (CUDA {torch.version.cuda})',
        'torchvision': found.get('TorchVision', 'not installed'),
        **{name: _version(names) for name, names in LIBRARIES.items()},
        'Python': platform.python_version(),
        'system': platform.platform(),
        'compilers here': ', '.join(
            found[name] for name in ('GCC', 'MSVC', 'NVCC') if name in found
        ),
        'CPU': f'{processor()}, {torch.get_num_threads()} threads',
        'instructions': (
            torch.ops.mmssm._instruction_set()
            if native.is_available()
            else '-'
        ),
        **_gpus(),
    }


def problems(devices: Sequence[str]) -> list[str]:
    """What keeps the native ops from running, one line each, with the fix.

    Args:
        devices (Sequence[str]): The devices to check: 'cpu', 'cuda'.
    """
    if native.problem():
        return [f'no native op: {native.problem()}; {native.HOW_TO_BUILD}']
    if 'cuda' not in devices:
        return []
    if not torch.cuda.is_available():
        return [
            f'torch {torch.__version__} finds no GPU; check the driver with '
            '`nvidia-smi`, or use --device cpu'
        ]
    if not native.has_kernels('cuda'):
        return [
            'the extension has no CUDA kernels; build mmssm again with nvcc '
            'and FORCE_CUDA=1, or use --device cpu'
        ]
    gpus = range(torch.cuda.device_count())
    return list(filter(None, map(native.missing_architecture, gpus)))


def _extension() -> str:
    if native.problem():
        return native.problem()
    built = native.build_info()
    kernels = ', '.join(built.architectures)
    return f'for torch {built.torch}, {built.compiler}, ' + (
        f'CUDA {built.cuda} ({kernels})' if built.cuda else 'CPU only'
    )


def _version(names: Sequence[str]) -> str:
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return version if name == names[0] else f'{version} ({name})'
    return 'not installed'


def _gpus() -> dict[str, str]:
    if not torch.cuda.is_available():
        return {'GPU': 'none'}
    gpus = {}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        gpus[f'GPU {index}'] = (
            f'{facts.name}, compute capability {facts.major}.{facts.minor}, '
            f'{facts.total_memory / 2**30:.0f} GiB, '
            f'{facts.multi_processor_count} multiprocessors'
        )
    return {**gpus, 'driver': _driver()}


def _driver() -> str:
    command = ['nvidia-smi', '--query-gpu=driver_version']
    try:
        asked = subprocess.run(
            [*command, '--format=csv,noheader'],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 'unknown (nvidia-smi does not answer)'
    return asked.stdout.split('\n')[0].strip()
