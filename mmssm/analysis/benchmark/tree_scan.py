"""Compare the tree scan with its reference and a scan along a chain.

GrootV's op is not measured: it also builds a tree from each image's features,
which takes most of its time.
"""

from typing import Any

import torch
from torch import Tensor

from mmssm.ops import (
    selective_scan,
    tree_scan,
    tree_scan_reference,
)
from mmssm.scans.route import route_indices
from mmssm.scans.tree import cached_tree

from .measure import Run, op_run
from .report import Report
from .sizes import (
    LAUNCHES,
    bench_sizes,
    draw,
)

# Side of the map, inner channels and rank of the step projection in
# FractalMamba-T at 224 pixels.
TREE_SIZES = {
    'FractalMamba-T stage 1': (56, 160, 5),
    'FractalMamba-T stage 2': (28, 320, 10),
    'FractalMamba-T stage 3': (14, 640, 20),
    'FractalMamba-T stage 4': (7, 1280, 40),
}
ORDER, PATHWAYS = 'hilbert', 0.1  # FractalMamba's default
REFERENCE_ROUNDS = 3
# The reference keeps several tensors for each step.
REFERENCE_STATES = 1 << 20
REMARK = (
    'Chain: one 1-D scan along the tokens, already in the order of the tree '
    'and in its layout; the tree scan makes two passes.'
)


def bench_tree(**options: Any) -> Report:
    """Measure the tree scan, its reference and a scan along a chain.

    Args:
        **options: ``batch``, ``rounds``, ``backward``, ``device``, ``dtype``,
            ``only`` (parts of names of :data:`TREE_SIZES`) and ``graphs`` of
            :func:`mmssm.analysis.benchmark.sizes.bench_sizes`, which also says
            what is returned and raised.
    """
    return bench_sizes(
        'Tree scan',
        TREE_SIZES,
        tree_inputs,
        _runs,
        [REMARK],
        **options,
    )


def tree_inputs(
    side: int,
    channels: int,
    rank: int,
    batch: int = 1,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The tree scan's arguments over a square map, from a fixed seed."""
    rand = draw(device, dtype)
    weights = torch.promote_types(dtype, torch.float32)
    tokens = side * side
    return dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, rank),
        A=-rand(channels, like=weights).abs() - 0.5,
        B=rand(batch, tokens),
        parents=cached_tree(ORDER, side, side, PATHWAYS, torch.device(device)),
        dt_weight=0.1 * rand(channels, rank, like=weights),
        dt_bias=rand(channels, like=weights) - 3,
    )


def for_chain(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tree scan's arguments as :func:`chain` takes them. Not timed."""
    x = inputs['x']
    side = round(x.shape[1] ** 0.5)
    order = torch.from_numpy(route_indices(ORDER, side, side).copy())
    order = order.to(x.device, torch.int64)
    changed = {
        n: inputs[n][:, order].transpose(1, 2).contiguous()
        for n in ('x', 'dt')
    }
    changed['B'] = inputs['B'][:, None, order].contiguous()
    changed['dt_weight'] = inputs['dt_weight'].to(x.dtype)
    kept = {n: inputs[n].detach() for n in ('A', 'dt_bias')}
    return {**kept, **changed}


def chain(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """A 1-D scan along the tokens, x (B, C, L); returns its states."""
    delta = torch.einsum('brt,cr->bct', dt, dt_weight)
    return selective_scan(
        x,
        delta,
        A.unsqueeze(-1),
        B,
        torch.ones_like(B),
        delta_bias=dt_bias,
        delta_softplus=True,
    )


def _runs(inputs: dict[str, Tensor], backward: bool) -> list[Run]:
    """All implementations, mmssm's first."""
    reference = op_run('reference', tree_scan_reference, inputs, backward)
    reference.rounds = REFERENCE_ROUNDS
    if inputs['x'].is_cuda:
        reference.note = LAUNCHES
    elif inputs['x'].numel() > REFERENCE_STATES:
        reference.note = 'left out, too slow and large at this size'
    return [
        op_run('mmssm', tree_scan, inputs, backward),
        reference,
        op_run('chain, one way', chain, for_chain(inputs), backward),
    ]
