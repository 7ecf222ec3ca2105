"""Compare the routed scan with other implementations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
    selective_scan,
)
from mmssm.scans import CROSS, routes
from mmssm.utils import UserError

from .measure import Run, op_run
from .peers import foreign_compositions, foreign_scans
from .report import Report
from .sizes import (
    LAUNCHES,
    bench_sizes,
    draw,
)

# The routed scan's sizes in VMamba's variants at 224 pixels: side of the map,
# inner channels, rank of the step projection, states per channel.
SCAN_SIZES = {
    'VMamba-T stage 1': (56, 96, 6, 1),
    'VMamba-T stage 2': (28, 192, 12, 1),
    'VMamba-T stage 3': (14, 384, 24, 1),
    'VMamba-T stage 4': (7, 768, 48, 1),
    'Vanilla-T stage 1': (56, 192, 6, 16),
}
OUR_COMPOSITION = 'gather, scan (ours), merge'
REFERENCE_ROUNDS = 3
# The reference keeps several float32 copies of all states.
REFERENCE_STATES = 1 << 26
# torch.compile unrolls the reference's loop over the steps of a route.
COMPILED_STEPS = 64


def bench_op(
    compiled: bool = False,
    states: int | None = None,
    device: torch.device | str = 'cpu',
    **options: Any,
) -> Report:
    """Measure the routed scan and its alternatives at several sizes.

    The first result is the native op. The others are its reference, gather,
    scan and merge with each available 1-D scan, and optionally versions of
    these compiled by ``torch.compile``.

    Args:
        compiled (bool): Whether to measure compiled versions too. Defaults to
            False.
        states (int | None): States per channel, at all sizes. Defaults to
            each size's own.
        device (torch.device | str): Defaults to 'cpu'.
        **options: ``batch``, ``rounds``, ``backward``, ``dtype``, ``only``
            (parts of names of :data:`SCAN_SIZES`) and ``graphs`` of
            :func:`mmssm.analysis.benchmark.sizes.bench_sizes`, which also says
            what is returned.

    Raises:
        UserError: If there is no image, round, state or such size.
    """
    if states is not None and states < 1:
        raise UserError(f'a channel needs at least one state, got {states}')
    device = torch.device(device)
    scans, no_scans = foreign_scans(device)
    compositions, no_compositions = foreign_compositions(device)

    def make_inputs(side, channels, rank, own, *where):
        return scan_inputs(side, channels, rank, states or own, *where)

    def make_runs(inputs, backward):
        return _runs(inputs, scans, compositions, backward, compiled)

    return bench_sizes(
        'Routed scan' if states is None else f'Routed scan, {states} states',
        SCAN_SIZES,
        make_inputs,
        make_runs,
        no_scans + no_compositions,
        device=device,
        **options,
    )


def _runs(
    inputs: dict,
    scans: dict,
    compositions: dict,
    backward: bool,
    compiled: bool,
) -> list[Run]:
    """All implementations, mmssm's first."""
    runs = [
        op_run('mmssm', routed_selective_scan, inputs, backward),
        _reference(inputs, backward),
    ]
    prepared = for_composition(inputs)
    ways = {
        f'gather, scan ({name}), merge': _composition(scan)
        for name, scan in {'ours': selective_scan, **scans}.items()
    }
    for name, way in {**ways, **compositions}.items():
        run = op_run(name, way, prepared, backward)
        run.optional = name != OUR_COMPOSITION
        runs.append(run)
    return runs + (_compiled(inputs, prepared, backward) if compiled else [])


def _reference(inputs: dict, backward: bool) -> Run:
    run = op_run(
        'reference', routed_selective_scan_reference, inputs, backward
    )
    run.rounds = REFERENCE_ROUNDS
    states = inputs['A'].numel() * inputs['x'].shape[0]
    if inputs['x'].is_cuda:
        run.note = LAUNCHES
    elif states * inputs['routes'].shape[1] > REFERENCE_STATES:
        run.note = 'left out, too slow and large at this size'
    return run


def _compiled(inputs: dict, prepared: dict, backward: bool) -> list[Run]:
    """Versions compiled by ``torch.compile``."""
    torch.compiler.reset()
    steps = inputs['routes'].shape[1]
    variants = [
        ('mmssm', routed_selective_scan, inputs),
        ('reference', routed_selective_scan_reference, inputs),
        (OUR_COMPOSITION, _composition(selective_scan), prepared),
    ]
    runs = []
    for name, scan, arguments in variants:
        scan = torch.compile(scan, dynamic=False)
        run = op_run(f'{name}, compiled', scan, arguments, backward)
        run.optional = True
        if name == 'reference' and steps > COMPILED_STEPS:
            run.note = (
                f'left out, {steps} steps are too many for torch.compile '
                'to unroll'
            )
        runs.append(run)
    return runs


def scan_inputs(
    side: int,
    channels: int,
    rank: int,
    states: int,
    batch: int = 1,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Arguments of the routed scan over a square map, from a fixed seed."""
    rand = draw(device, dtype)
    # In float32 at least, as under autocast.
    weights = torch.promote_types(dtype, torch.float32)
    tokens, count = side * side, len(CROSS)
    return dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, count, rank),
        A=-rand(count, channels, states, like=weights).abs() - 0.5,
        B=rand(batch, tokens, count, states),
        C=rand(batch, tokens, count, states),
        D=rand(count, channels, like=weights),
        routes=routes(CROSS, side, side, device),
        dt_weight=0.1 * rand(count, channels, rank, like=weights),
        dt_bias=rand(count, channels, like=weights) - 3,
    )


def for_composition(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The routed scan's arguments as :func:`gather_scan_merge` takes them.

    Not timed: the original code projects after the gather, so its dt, B and C
    are already in route order.
    """
    index = inputs['routes'].long()

    def along_routes(values: Tensor) -> Tensor:
        """(B, L, K, R) -> (B, K, R, T)."""
        parts = [values[:, row, k] for k, row in enumerate(index)]
        return torch.stack(parts, 1).transpose(2, 3).contiguous()

    x = inputs['x']
    changed = {n: along_routes(inputs[n]) for n in ('dt', 'B', 'C')}
    changed['x'] = x.transpose(1, 2).contiguous()
    changed['routes'] = index
    changed['dt_weight'] = inputs['dt_weight'].to(x.dtype)
    return {**inputs, **changed}


def gather_scan_merge(
    scan: Callable[..., Tensor],
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    routes: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """Run a 1-D scan over K copies of the map, as the original code does.

    Args:
        scan (Callable): Takes the arguments of
            :func:`mmssm.ops.selective_scan`.
        x (Tensor): Map (B, C, L).
        dt (Tensor): Low-rank steps (B, K, R, T).
        A (Tensor): Decay rates (K, C, N).
        B (Tensor): Input weights (B, K, N, T).
        C (Tensor): Output weights (B, K, N, T).
        D (Tensor): Skip weights (K, C).
        routes (Tensor): Token indices (K, T), int64, none of them -1.
        dt_weight (Tensor): Step projection (K, C, R).
        dt_bias (Tensor): Step bias (K, C).

    Returns:
        Tensor: (B, C, L), the sum over routes.
    """
    batch, channels, tokens = x.shape
    count, steps = routes.shape
    # The quickest ways, in forward and backward, to gather and to merge with
    # PyTorch's operators.
    shape = (batch, count, channels)
    u = x.unsqueeze(1).expand(*shape, tokens)
    u = u.gather(-1, routes.view(1, count, 1, steps).expand(*shape, steps))
    delta = torch.einsum('bkrt,kcr->bkct', dt, dt_weight)
    y = scan(
        u.flatten(1, 2),
        delta.flatten(1, 2),
        A.flatten(0, 1),
        B,
        C,
        D.flatten(),
        delta_bias=dt_bias.flatten(),
        delta_softplus=True,
    )
    merged = y.new_zeros(x.shape)
    for route, part in zip(routes, y.unflatten(1, shape[1:]).unbind(1)):
        merged.scatter_add_(-1, route.expand_as(part), part)
    return merged


def _composition(scan: Callable) -> Callable:
    # torch.compile handles functools.partial less well.
    return lambda **inputs: gather_scan_merge(scan, **inputs)
