"""What the report is made of: the steps, in order of their worth."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .reading import METRICS

ROOT = Path(__file__).resolve().parents[2]
# Where installers put what is often on no path.
TOOL_FOLDERS = ('/usr/local/cuda/bin', '/opt/nvidia/nsight-compute')
# Every CUDA kernel of csrc.
KERNELS = (
    'bwd_carry_kernel',
    'bwd_kernel',
    'climb_kernel',
    'combine_kernel',
    'descend_both_kernel',
    'descend_kernel',
    'fusion_kernel',
    'fusion_map_kernel',
    'fusion_parameters_kernel',
    'fwd_kernel',
    'tree_grads_kernel',
    'tree_values_kernel',
)
TESTS = (
    'tests/test_ops',
    'tests/test_layers',
    'tests/test_backbones/test_golden.py',
    'tests/test_analysis/test_benchmark.py',
)
QUICK_TESTS = ('tests/test_ops/test_selective_scan.py',)
LARGE = '2_31'  # in the names of tests that need tens of gigabytes
NO_GPU = 'it needs a GPU'
RESULT = '{result}'  # in a command: the file that it is to write


@dataclass(frozen=True)
class Step:
    """One process of the report.

    Attributes:
        name (str): What to call it.
        what (str): What it tells, one line.
        kind (str): How its result is read: 'json' and 'tests' from the file
            in place of :data:`RESULT`, 'sanitizer' and 'ncu' from its output.
        command (tuple[str, ...]): Program and arguments.
        limit (int): Seconds, after which it is ended.
        absent (str): Why it cannot run here; empty if it can.
        together (bool): Whether it may run beside its neighbors that also
            may: it measures no time.
        variables (dict[str, str]): Added to the environment.
    """

    name: str
    what: str
    kind: str
    command: tuple[str, ...]
    limit: int
    absent: str = ''
    together: bool = False
    variables: dict[str, str] = field(default_factory=dict)


def plan(device: str, names: Sequence[str] = ()) -> list[Step]:
    """The steps for a device, 'cpu' or 'cuda'.

    Args:
        device (str): Where to measure. On a CPU sizes are small.
        names (Sequence[str]): Of the steps wanted; none for all.

    Raises:
        ValueError: If there is no step of a name.
    """
    steps = [
        _measure('environment', 'Machine and versions', device, 30),
        _check(device),
        _tests(device),
        _measure('golden', 'Outputs of the originals', device, 90),
        _sanitizer(device, 'memcheck'),
        _sanitizer(device, 'racecheck'),
        _sanitizer(device, 'initcheck'),
        _measure('ops scan', 'Routed scan, one state', device, 60),
        _measure('models small', 'Backbones, small images', device, 80),
        _kernels(device),
        _measure('ops others', 'Tree scan, state fusion', device, 60),
        _large_tests(device),
        _measure('ops more', 'Routed scan, few images', device, 60),
        _measure('models large', 'Backbones, large images', device, 70),
    ]
    known = [step.name for step in steps]
    for name in names:
        if name not in known:
            raise ValueError(
                f'no step {name!r}; there are: {", ".join(known)}'
            )
    return [step for step in steps if not names or step.name in names]


def _measure(name: str, what: str, device: str, limit: int) -> Step:
    """A module of :mod:`gpu_report.measure`, and which part of it."""
    module, *part = name.split()
    return Step(
        name.replace(' ', '-'),
        what,
        'json',
        (
            *(sys.executable, '-m', f'gpu_report.measure.{module}', *part),
            *('--device', device, '--json', RESULT),
        ),
        limit,
        together=module == 'golden',
    )


def _check(device: str) -> Step:
    return Step(
        'check',
        'What a user runs after an install',
        'json',
        (
            *(sys.executable, '-m', 'mmssm.check', '--quick'),
            *('--device', device, '--json', RESULT),
        ),
        60,
    )


def _tests(device: str) -> Step:
    if device == 'cpu':
        return _pytest('tests', 'Some tests', True, '-k', 'cpu', *QUICK_TESTS)
    chosen = ('-m', 'cuda', '-k', f'not {LARGE}', *TESTS)
    # Most of a test's time is the reference's, on one or two cores.
    workers = min(8, (os.cpu_count() or 1) // 2)
    if workers > 1 and importlib.util.find_spec('xdist'):
        chosen = ('-n', str(workers), *chosen)
    what = 'All tests of ops, layers and models that a GPU can run'
    return _pytest('tests', what, True, *chosen)


def _large_tests(device: str) -> Step:
    # Each takes most of the memory: none runs beside anything else.
    chosen = ('-m', 'cuda', '-k', LARGE, 'tests/test_ops')
    what = 'Tests of tensors with more than 2^31 values'
    step = _pytest('tests-large', what, False, *chosen)
    return step if device == 'cuda' else replace(step, absent=NO_GPU)


def _pytest(name: str, what: str, together: bool, *chosen: str) -> Step:
    return Step(
        name,
        what,
        'tests',
        (
            *(sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'),
            *(f'--junitxml={RESULT}', *chosen),
        ),
        120 if together else 60,
        together=together,
        # Or matrix products are not the same in every run.
        variables={'CUBLAS_WORKSPACE_CONFIG': ':4096:8'},
    )


def _sanitizer(device: str, tool: str) -> Step:
    program = find_tool('compute-sanitizer')
    # Initialization by kernels that are not watched would not be seen.
    watched = () if tool == 'initcheck' else ('--kernel-name', 'kns=mmssm')
    if tool == 'memcheck':  # PyTorch's probing calls are no memory errors
        watched += ('--report-api-errors', 'no')
    # Memory that is kept for later hides what lies beyond a tensor, and what
    # was never written.
    cache = (
        {} if tool == 'racecheck' else {'PYTORCH_NO_CUDA_MEMORY_CACHING': '1'}
    )
    return Step(
        tool,
        f'compute-sanitizer {tool} on small inputs of every kernel',
        'sanitizer',
        (
            *(program, '--tool', tool, *watched),
            *(sys.executable, '-m', 'gpu_report.measure.sweep'),
        ),
        100,
        absent=_absent(device, program),
        together=True,
        variables=cache,
    )


def _kernels(device: str) -> Step:
    program = find_tool('ncu')
    return Step(
        'kernels',
        'ncu on one launch of every main kernel',
        'ncu',
        (
            *(program, '--csv', '--print-units', 'base'),
            *('--clock-control', 'none'),
            *('--kernel-name', f'regex:^({"|".join(KERNELS)})$'),
            *('--metrics', ','.join(METRICS.values())),
            *(sys.executable, '-m', 'gpu_report.measure.launches'),
        ),
        70,
        absent=_absent(device, program),
    )


def _absent(device: str, program: str) -> str:
    if device == 'cpu':
        return NO_GPU
    return '' if os.path.isabs(program) else f'{program} is not installed'


def find_tool(name: str) -> str:
    """A program's path; its bare name if it is not installed."""
    found = shutil.which(name)
    for folder in () if found else TOOL_FOLDERS:
        for path in sorted(Path(folder).glob(f'**/{name}')):
            if os.access(path, os.X_OK) and path.is_file():
                found = str(path)
    return found or name
