"""Compare an op with its alternatives at several sizes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmssm.ops import native
from mmssm.utils import UserError

from .measure import (
    BANDWIDTH,
    FLOOR,
    PEAK,
    READING,
    Case,
    Run,
    copy_bandwidth,
    in_graph,
    machine,
    measure,
    op_facts,
)
from .report import Report, op_table

# A reference is a loop over steps in Python, so it is not measured on a GPU.
LAUNCHES = 'left out, thousands of launches, one after the other'
GRAPHS = (
    'CUDA graph: calls replayed without launching kernels one by one, which '
    'takes most of the time for small maps.'
)


def bench_sizes(
    op: str,
    sizes: dict[str, tuple],
    make_inputs: Callable[..., dict[str, Tensor]],
    make_runs: Callable[[dict[str, Tensor], bool], list[Run]],
    remarks: Sequence[str],
    *,
    batch: int = 1,
    rounds: int = 5,
    backward: bool = False,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
    only: Sequence[str] = (),
    graphs: bool = False,
) -> Report:
    """Measure an op and its alternatives at the sizes of real models.

    Args:
        op (str): The op's name, for the title.
        sizes (dict[str, tuple]): By name, the first arguments of
            ``make_inputs``.
        make_inputs (Callable): Takes a size's numbers, the batch, device and
            dtype; returns the op's arguments, with a map 'x'.
        make_runs (Callable): Takes these arguments and whether backward is
            measured; returns the implementations, mmssm's first.
        remarks (Sequence[str]): How to read the tables of this op.
        batch (int): Images. Defaults to 1.
        rounds (int): Timed rounds. Defaults to 5.
        backward (bool): Whether the backward is measured too. Defaults to
            False.
        device (torch.device | str): Defaults to 'cpu'.
        dtype (torch.dtype): Dtype of maps. Defaults to float32.
        only (Sequence[str]): Measure only sizes whose names contain one of
            these. Defaults to all sizes.
        graphs (bool): Whether to measure each implementation also in a CUDA
            graph. Defaults to False.

    Returns:
        Report: Its tables are printed as soon as they are measured. Phases are
        'forward' and, with ``backward``, 'forward + backward'. ``facts`` are
        the bytes of a map; the bytes of the floor, which is the least an op
        must move (each input read once, each result written once); and the
        bandwidth of a copy on the device, bytes per second.

    Raises:
        UserError: If there is no image, no round or no such size, or if
            ``graphs`` is set on a CPU.
    """
    if batch < 1:
        raise UserError(f'the batch needs at least one image, got {batch}')
    if rounds < 1:
        raise UserError(f'at least one round is needed, got {rounds}')
    device = torch.device(device)
    if graphs and device.type != 'cuda':
        raise UserError(
            f'CUDA graphs need a GPU, got device {device}; leave them out'
        )
    chosen = choose(sizes, only)
    bandwidth = copy_bandwidth(device)
    title = f'{op}, {"forward + backward" if backward else "forward"}'
    report = Report(
        f'{title}, batch {batch}, {str(dtype)[6:]}',
        machine(device),
        [
            READING.format(rounds),
            f'{PEAK.format("the inputs")} Maps: peak over the bytes of x.',
            FLOOR,
            BANDWIDTH.format(bandwidth / 1e9),
            *([GRAPHS] if graphs else []),
            *remarks,
        ],
    )
    if not native.use_native(torch.empty(0, device=device)):
        report.remarks.append(
            f'mmssm: no native op for {device}, the reference runs'
        )
    for name, size in chosen.items():
        inputs = make_inputs(*size, batch, device, dtype)
        runs = make_runs(inputs, backward)
        if graphs:
            runs += [in_graph(r) for r in runs if not (r.note or r.rounds)]
        results = measure(name, runs, rounds, device)
        facts = dict(op_facts(inputs, backward), bandwidth=bandwidth)
        case = Case(name, results, facts)
        report.add(op_table(case), case)
    return report


def choose(sizes: dict[str, tuple], only: Sequence[str]) -> dict[str, tuple]:
    """The sizes whose names contain one of ``only``; all if it is empty.

    Raises:
        UserError: If one of ``only`` is in no name.
    """
    for part in only:
        if not any(part in name for name in sizes):
            raise UserError(
                f'no size has {part!r} in its name; known: {", ".join(sizes)}'
            )
    return {
        name: size
        for name, size in sizes.items()
        if not only or any(part in name for part in only)
    }


def draw(
    device: torch.device | str, dtype: torch.dtype
) -> Callable[..., Tensor]:
    """A function that draws normal numbers on a device, from a fixed seed.

    Returns:
        Callable: Takes a shape, and as keyword ``like`` a dtype to use
        instead of ``dtype``.
    """
    generator = torch.Generator(device).manual_seed(0)

    def rand(*shape: int, like: torch.dtype = dtype) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, device=device)
        return drawn.to(like)

    return rand
