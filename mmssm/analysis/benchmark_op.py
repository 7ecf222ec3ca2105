"""The routed scan beside everything else that computes it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmssm.ops import (
    native,
    routed_selective_scan,
    routed_selective_scan_reference,
    selective_scan,
)
from mmssm.scans import CROSS, routes

from .benchmark import (
    FLOOR,
    PEAK,
    READING,
    Case,
    Run,
    machine,
    measure,
    op_facts,
    op_run,
)
from .benchmark_report import Report, op_table

# The routed scan's sizes in VMamba's variants at 224 pixels: side of the map,
# inner channels, rank of the step projection, states per channel.
SCAN_SIZES = {
    'VMamba-T stage 1': (56, 96, 6, 1),
    'VMamba-T stage 2': (28, 192, 12, 1),
    'VMamba-T stage 3': (14, 384, 24, 1),
    'VMamba-T stage 4': (7, 768, 48, 1),
    'Vanilla-T stage 1': (56, 192, 6, 16),
}
REFERENCE_ROUNDS = 3
# The reference keeps several float32 copies of all states.
REFERENCE_STATES = 1 << 26
# torch.compile unrolls the reference's loop over the steps of a route.
COMPILED_STEPS = 64


def bench_op(
    batch: int = 1,
    rounds: int = 5,
    backward: bool = False,
    compiled: bool = False,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> Report:
    """Measure the routed scan and its alternatives, size by size.

    The first result is the native op; the others are its reference, the
    composition of gather, scan and merge around each 1-D scan at hand, and on
    request what ``torch.compile`` makes of them.

    Args:
        batch (int): Images. Defaults to 1.
        rounds (int): Timed rounds. Defaults to 5.
        backward (bool): Whether the backward is measured too. Defaults to
            False.
        compiled (bool): Whether compiled variants join. Defaults to False.
        device (torch.device | str): Defaults to 'cpu'.
        dtype (torch.dtype): Of the tokens. Defaults to float32.

    Returns:
        Report: Its tables are printed as they come. Phases are 'forward' and,
        if asked for, 'forward + backward'. ``facts`` are the bytes of a (B,
        L, C) map and the floor, what an op must move that keeps nothing but
        inputs and results: each input read once, each result written once.

    Raises:
        ValueError: If there is no image or no round.
    """
    if batch < 1:
        raise ValueError(f'the batch needs at least one image, got {batch}')
    device = torch.device(device)
    foreign, missing = foreign_scans(device)
    step = 'forward + backward' if backward else 'forward'
    remarks = [
        READING.format(rounds),
        PEAK.format('the inputs') + ' A map: B x L x C tokens.',
        FLOOR,
        *missing,
    ]
    if not native.use_native(torch.empty(0, device=device)):
        remarks.append(f'mmssm: no native op for {device}, the reference runs')
    title = f'Routed scan, {step}, batch {batch}, {str(dtype)[6:]}'
    report = Report(title, machine(device), remarks)
    for name, size in SCAN_SIZES.items():
        inputs = scan_inputs(*size, batch, device, dtype)
        runs = _runs(inputs, foreign, backward, compiled)
        results = measure(name, runs, rounds, device)
        case = Case(name, results, op_facts(inputs, backward))
        report.add(op_table(case), case)
    return report


def _runs(
    inputs: dict, foreign: dict, backward: bool, compiled: bool
) -> list[Run]:
    """All implementations, mmssm's first."""
    runs = [
        op_run('mmssm', routed_selective_scan, inputs, backward),
        _reference(inputs, backward),
    ]
    prepared = for_composition(inputs)
    for name, scan in {'ours': selective_scan, **foreign}.items():
        title = f'gather, scan ({name}), merge'
        run = op_run(title, _composition(scan), prepared, backward)
        run.optional = name in foreign
        runs.append(run)
    return runs + (_compiled(inputs, prepared, backward) if compiled else [])


def _reference(inputs: dict, backward: bool) -> Run:
    run = op_run(
        'reference', routed_selective_scan_reference, inputs, backward
    )
    run.rounds = REFERENCE_ROUNDS
    states = inputs['A'].numel() * inputs['x'].shape[0]
    if states * inputs['routes'].shape[1] > REFERENCE_STATES:
        run.note = 'left out, too slow and large at this size'
    return run


def _compiled(inputs: dict, prepared: dict, backward: bool) -> list[Run]:
    """The same under ``torch.compile``."""
    torch.compiler.reset()
    steps = inputs['routes'].shape[1]
    variants = [
        ('mmssm', routed_selective_scan, inputs),
        ('reference', routed_selective_scan_reference, inputs),
        ('gather, scan (ours), merge', _composition(selective_scan), prepared),
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
    generator = torch.Generator().manual_seed(0)
    # What autocast leaves in float32 stays there.
    weights = torch.promote_types(dtype, torch.float32)

    def rand(*shape: int, like: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, like)

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

    Not timed: the originals project after the gather, and so have dt, B and
    C in route order from the start.
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
    """What the originals do: a 1-D scan over K copies of the map.

    Args:
        scan (Callable): With the arguments of
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
    # Of the ways to gather and to merge with PyTorch's own operators, these
    # were the quickest, backwards too.
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
    # Not functools.partial, which torch.compile handles less well.
    return lambda **inputs: gather_scan_merge(scan, **inputs)


def foreign_scans(
    device: torch.device,
) -> tuple[dict[str, Callable], list[str]]:
    """Others' 1-D scans that can run here, and why each other one cannot.

    Returns:
        tuple: Functions by name, with the arguments of
        :func:`mmssm.ops.selective_scan`; one line per missing one.
    """
    scans, missing = {}, []
    for name, find in (
        ('mamba-ssm', _find_mamba_ssm),
        ("VMamba's kernel", _find_oflex),
    ):
        if device.type != 'cuda':
            missing.append(f'{name}: left out, it runs on CUDA only')
            continue
        try:
            scans[name] = find()
        except Exception as error:  # Their imports fail in many ways.
            cause = ' '.join(str(error).split())
            missing.append(f'{name}: left out, its import fails ({cause})')
    return scans, missing


def _find_mamba_ssm() -> Callable:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn


def _find_oflex() -> Callable:
    import selective_scan_cuda_oflex as kernel

    class Scan(torch.autograd.Function):
        """VMamba's kernel with its settings: 16-bit in, float32 out."""

        @staticmethod
        def forward(ctx, u, delta, A, B, C, D, delta_bias, softplus):
            inputs = (u, delta, A, B, C, D, delta_bias)
            out, states, *_ = kernel.fwd(*inputs, softplus, 1, True)
            ctx.save_for_backward(*inputs, states)
            ctx.softplus = softplus
            return out

        @staticmethod
        @once_differentiable
        def backward(ctx, grad):
            *inputs, states = ctx.saved_tensors
            grads = kernel.bwd(
                *inputs, grad.contiguous(), states, ctx.softplus, 1
            )
            return (*grads[:7], None)

    def scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
        return Scan.apply(u, delta, A, B, C, D, delta_bias, delta_softplus)

    return scan
