"""Time implementations of one computation side by side."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
)
from mmssm.scans import CROSS, routes

# The routed scan's sizes in VMamba's variants at 224 pixels: side of the map,
# inner channels, rank of the step projection, states per channel.
SCAN_SIZES = {
    'VMamba-T stage 1': (56, 96, 6, 1),
    'VMamba-T stage 2': (28, 192, 12, 1),
    'VMamba-T stage 3': (14, 384, 24, 1),
    'VMamba-T stage 4': (7, 768, 48, 1),
    'Vanilla-T stage 1': (56, 192, 6, 16),
}


@dataclass
class Timing:
    """Seconds per call of one implementation in one case.

    Attributes:
        case (str): What was computed.
        name (str): Which implementation computed it.
        seconds (list[float]): One entry per round.
    """

    case: str
    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """The median of all rounds, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2]


def time_in_turns(
    case: str,
    runs: dict[str, Callable[[], object]],
    rounds: int,
    device: str = 'cpu',
) -> list[Timing]:
    """Time several implementations in interleaved rounds.

    In turns, a machine that slows down slows all of them alike, so that the
    ratios hold.

    Args:
        case (str): What is computed.
        runs (dict[str, Callable]): The implementations by name.
        rounds (int): Timed rounds; one more, first, is not timed.
        device (str): Whose work is waited for. Defaults to 'cpu'.

    Returns:
        list[Timing]: In the order of ``runs``.
    """
    timings = {name: Timing(case, name, []) for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device != 'cpu':
                torch.cuda.synchronize(device)
            if turn:
                elapsed = time.perf_counter() - start
                timings[name].seconds.append(elapsed)
    return list(timings.values())


def scan_inputs(
    side: int,
    channels: int,
    rank: int,
    states: int,
    batch: int = 1,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Arguments of the routed scan over a square map, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    tokens, count = side * side, len(CROSS)
    return dict(
        x=rand(batch, tokens, channels).to(dtype),
        dt=rand(batch, tokens, count, rank).to(dtype),
        A=-rand(count, channels, states).abs() - 0.5,
        B=rand(batch, tokens, count, states).to(dtype),
        C=rand(batch, tokens, count, states).to(dtype),
        D=rand(count, channels),
        routes=routes(CROSS, side, side, device),
        dt_weight=0.1 * rand(count, channels, rank),
        dt_bias=rand(count, channels) - 3,
    )


def time_scan(
    batch: int = 1,
    rounds: int = 5,
    backward: bool = False,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> Iterator[list[Timing]]:
    """Time the native routed scan beside its reference, case by case.

    Args:
        batch (int): Images. Defaults to 1.
        rounds (int): Timed rounds. Defaults to 5.
        backward (bool): Whether a step is forward and backward. Defaults to
            False.
        device (str): Defaults to 'cpu'.
        dtype (torch.dtype): Of the tokens. Defaults to float32.

    Yields:
        list[Timing]: The native op's, then the reference's.
    """
    for case, size in SCAN_SIZES.items():
        inputs = scan_inputs(*size, batch, device, dtype)
        floats = [t for t in inputs.values() if t.is_floating_point()]
        for tensor in floats:
            tensor.requires_grad_(backward)

        def run(scan, inputs=inputs, floats=floats):
            y = scan(**inputs)
            if backward:
                torch.autograd.grad(y, floats, y.detach())

        runs = {
            'native': lambda run=run: run(routed_selective_scan),
            'reference': lambda run=run: run(routed_selective_scan_reference),
        }
        yield time_in_turns(case, runs, rounds, device)


def machine(device: str = 'cpu') -> str:
    """One line that says what the times were measured on."""
    name = platform.processor() or platform.machine()
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as info:
            models = [line for line in info if line.startswith('model name')]
        name = models[0].split(':')[1].strip() if models else name
    if device != 'cpu':
        name = f'{torch.cuda.get_device_name(device)}, {name}'
    return (
        f'{name}, {torch.get_num_threads()} threads, torch '
        f'{torch.__version__}, Python {platform.python_version()}'
    )
