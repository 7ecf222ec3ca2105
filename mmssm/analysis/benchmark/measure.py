"""Compare implementations of one computation.

The modules named after the ops and ``model.py`` choose the implementations;
``report.py`` makes the tables and :mod:`mmssm.visualization.benchmark` the
picture.
"""

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.autograd.profiler import profile

from mmssm.ops.memory import keep_freed_memory
from mmssm.utils import UserError

# A quicker call is repeated until a turn lasts this long, so that the clock is
# precise enough and launches overlap.
MIN_SECONDS = 0.02

READING = (
    'Medians of {} interleaved rounds after a warm-up; ratio: time over that '
    'of the first row.'
)
PEAK = 'Peak: most memory of tensors at a time, above {}.'
FLOOR = (
    "GB/s: the floor over the time. Floor: the op's inputs read once, its "
    'results written once.'
)
BANDWIDTH = (
    'x floor: the time over the one in which a copy moves as many bytes; '
    'measured just before, a copy reads and writes {:.0f} GB/s.'
)
# Larger than any cache, and quick enough to be repeated.
COPIED_BYTES = {'cpu': 1 << 27, 'cuda': 1 << 30}


@dataclass
class Run:
    """One implementation to measure.

    Attributes:
        name (str): Its name.
        phases (dict[str, Callable]): Functions to time, by name. The last one
            is the whole: its memory is measured, and ratios refer to it.
        rounds (int | None): The most rounds, for a slow implementation.
        optional (bool): Whether a failure leaves it out with a note. If not,
            a failure stops the measurement.
        allocates (bool): Whether a call allocates its memory, so that it can
            be measured.
        note (str): Why it is not measured; empty if it is.
    """

    name: str
    phases: dict[str, Callable[[], object]] = field(default_factory=dict)
    rounds: int | None = None
    optional: bool = False
    allocates: bool = True
    note: str = ''


@dataclass
class Result:
    """The measurement of a :class:`Run`.

    Attributes:
        name (str): The run's name.
        seconds (dict[str, list[float]]): Seconds per call by phase, one entry
            per round.
        peak (int | None): Most bytes allocated at a time during the last
            phase, without those allocated before (arguments and weights) but
            with its results. None if not measured.
        note (str): Why there is no measurement; empty if there is one.
    """

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak: int | None = None
    note: str = ''

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by phase."""
        return {k: statistics.median(v) for k, v in self.seconds.items()}

    @property
    def median(self) -> float | None:
        """Median seconds of the last phase, None if not measured."""
        return next(reversed(self.medians.values()), None)


def op_run(
    name: str, op: Callable[..., Tensor], inputs: dict, backward: bool
) -> Run:
    """Make a run of an op: forward in inference mode, or with backward.

    Args:
        name (str): The name of the run.
        op (Callable): Takes ``inputs``, returns one tensor of the shape of
            ``inputs['x']``.
        inputs (dict[str, Tensor]): By argument name. With ``backward``,
            floating-point tensors are set to require gradients.
        backward (bool): Whether gradients are measured too.

    Returns:
        Run: Its phases are 'forward' and, with ``backward``, 'forward +
        backward'.
    """
    floats = [t for t in inputs.values() if t.is_floating_point()]
    grad = torch.ones_like(inputs['x'])

    def forward():
        return op(**inputs)

    def forward_only():
        with torch.inference_mode():
            return op(**inputs)

    def both():
        y = forward()
        return torch.autograd.grad(y, floats, grad.to(y.dtype))

    if not backward:
        return Run(name, {'forward': forward_only})
    for tensor in floats:
        tensor.requires_grad_()
    return Run(name, {'forward': forward, 'forward + backward': both})


def op_facts(inputs: dict[str, Tensor], backward: bool) -> dict[str, int]:
    """The least bytes that an op must move: its inputs and results.

    Args:
        inputs (dict[str, Tensor]): As in :func:`op_run`.
        backward (bool): As in :func:`op_run`.

    Returns:
        dict[str, int]: Bytes of the map ``inputs['x']`` and of the floor; with
        ``backward`` also the floor of forward alone.
    """
    sizes = {n: t.numel() * t.element_size() for n, t in inputs.items()}
    result = sizes['x']
    floor = sum(sizes.values()) + result
    if not backward:
        return dict(map_bytes=result, floor_bytes=floor)
    # Backward: the inputs, the result's gradient, the inputs' gradients.
    floats = [n for n, t in inputs.items() if t.is_floating_point()]
    both = 2 * floor + sum(sizes[n] for n in floats)
    return dict(map_bytes=result, floor_bytes=both, forward_floor_bytes=floor)


def in_graph(run: Run) -> Run:
    """A run whose calls are captured in a CUDA graph and replayed.

    A replay does not launch kernels one by one, which takes most of the time
    for small maps.

    Args:
        run (Run): Its calls must not wait for the device.

    Returns:
        Run: It is optional, and its memory is not measured.
    """
    return Run(
        f'{run.name}, CUDA graph',
        {phase: _replay(call) for phase, call in run.phases.items()},
        rounds=run.rounds,
        optional=True,
        allocates=False,
        note=run.note,
    )


def _replay(call: Callable[[], object]) -> Callable[[], None]:
    """Capture at the first call, which is a warm-up; then replay."""
    graphs = []

    def replay() -> None:
        if not graphs:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                call()  # chooses or loads kernels, which a graph cannot
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            graphs.append(graph)
        graphs[0].replay()

    return replay


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy in a device's memory reads and writes.

    The best of five turns, since it stands for what the memory can do.
    """
    size = COPIED_BYTES[device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    repeats = int(MIN_SECONDS / _seconds(copy, 1, device)) or 1
    seconds = [_seconds(copy, repeats, device) for _ in range(5)]
    return 2 * size / min(seconds)


@dataclass
class Case:
    """One computation and the results of its implementations.

    Attributes:
        name (str): What was computed.
        results (list[Result]): The others are compared with the first.
        facts (dict): Numbers that are needed to read the measurement.
    """

    name: str
    results: list[Result]
    facts: dict = field(default_factory=dict)

    def ratio(self, result: Result) -> float | None:
        """Time of a result over that of the first one."""
        base = self.results[0].median
        return result.median / base if base and result.median else None


def measure(
    case: str, runs: list[Run], rounds: int, device: torch.device
) -> list[Result]:
    """Measure in interleaved rounds, after a warm-up of each.

    Interleaving keeps ratios valid: if the machine slows down, all runs slow
    down alike. A run that is out of GPU memory is left out with a note.

    Args:
        case (str): What is computed, for the progress display.
        runs (list[Run]): The implementations.
        rounds (int): Timed rounds.
        device (torch.device): The device that runs the calls.

    Returns:
        list[Result]: In the order of ``runs``.

    Raises:
        UserError: If there is no round.
    """
    if rounds < 1:
        raise UserError(f'at least one round is needed, got {rounds}')
    results = [Result(run.name, note=run.note) for run in runs]
    # Shown on a terminal only, until the case is done.
    progress = Progress(
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
        # A thread that redraws would use the CPU.
        auto_refresh=False,
    )
    with progress:
        task = progress.add_task(case, total=(rounds + 1) * len(runs))
        repeats = []
        for run, result in zip(runs, results):
            repeats.append(_prepare(run, result, device))
            progress.update(task, advance=1, refresh=True)
        for turn in range(rounds):
            for run, result, times in zip(runs, results, repeats):
                if not result.note and turn < (run.rounds or rounds):
                    _take_turn(run, result, times, device)
                progress.update(task, advance=1, refresh=True)
    return results


@contextmanager
def _noting_failure(run: Run, result: Result) -> Iterator[None]:
    """Leave out a run that needs too much memory, or an optional failure."""
    try:
        yield
    except torch.OutOfMemoryError:
        result.note = 'out of memory'
    except Exception as error:
        if not run.optional:
            raise
        first_line = (str(error).splitlines() or [''])[0]
        result.note = f'failed: {type(error).__name__}: {first_line}'


def _take_turn(
    run: Run, result: Result, repeats: dict[str, int], device: torch.device
) -> None:
    with _noting_failure(run, result):
        for phase, call in run.phases.items():
            seconds = _seconds(call, repeats[phase], device)
            result.seconds.setdefault(phase, []).append(seconds)


def _prepare(run: Run, result: Result, device: torch.device) -> dict[str, int]:
    """Warm up and measure the peak; return calls per turn by phase."""
    repeats = {}
    if result.note:
        return repeats
    with _noting_failure(run, result):
        for phase, call in run.phases.items():
            _seconds(call, 1, device)  # May load, choose or compile kernels.
            repeats[phase] = int(MIN_SECONDS / _seconds(call, 1, device)) or 1
        if run.allocates:
            result.peak = peak_bytes(call, device)
    return repeats


def _seconds(call: Callable, repeats: int, device: torch.device) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors allocated at one time during a call.

    Tensors allocated before do not count; results do. On a GPU the caching
    allocator keeps this number. On a CPU it is computed from the allocations
    and releases that PyTorch's profiler reports.
    """
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Without this, CUDA builds print on a machine without a GPU.
    os.environ.setdefault('KINETO_LOG_LEVEL', '5')
    # torch.profiler would also make Python objects of all events, which takes
    # many times as long as the call.
    with profile(profile_memory=True, use_kineto=True) as profiler:
        call()
    events = profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), number, event.nbytes())
        for number, event in enumerate(events)
        if event.name() == '[memory]'
    )
    allocated = peak = 0
    for _, _, change in changes:
        allocated += change
        peak = max(peak, allocated)
    return peak


def prepare(name: str | None, threads: int | None) -> torch.device:
    """The device to measure on, by default a GPU if there is one.

    On a CPU the process keeps freed memory from here on, as programs that
    run models on CPUs do (:func:`mmssm.ops.memory.keep_freed_memory`).

    Args:
        name (str | None): 'cpu', 'cuda' or 'cuda:N'.
        threads (int | None): Number of CPU threads from here on; by default
            PyTorch's choice.

    Raises:
        UserError: If there is no such device, or no thread.
    """
    if threads is not None:
        if threads < 1:
            raise UserError(f'at least one thread is needed, got {threads}')
        torch.set_num_threads(threads)
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise UserError(f'device must be cpu, cuda or cuda:N, got {name!r}')
    device = torch.device(name)
    if device.type == 'cuda':
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(
                f'device {name} was asked for, but PyTorch finds '
                f'{torch.cuda.device_count()} usable GPUs; use --device cpu, '
                'or one that is there'
            )
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    return device


def processor() -> str:
    """The CPU's name."""
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as info:
            models = [line for line in info if line.startswith('model name')]
        if models:
            return models[0].split(':')[1].strip()
    return platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """Describe the machine in one line."""
    name = processor()
    built = f'torch {torch.__version__}'
    if device.type == 'cuda':
        name = f'{torch.cuda.get_device_name(device)}, {name}'
        built = f'{built}, CUDA {torch.version.cuda}'
    return (
        f'{name}, {torch.get_num_threads()} threads, {built}, '
        f'Python {platform.python_version()}'
    )
