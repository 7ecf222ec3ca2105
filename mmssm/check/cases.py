"""The inputs that the ops are checked with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmssm.analysis.benchmark.routed_selective_scan import scan_inputs


@dataclass
class Case:
    """An op and its arguments.

    Attributes:
        op (str): Its name in :mod:`mmssm.ops`.
        name (str): The name of the case.
        tensors (dict[str, Tensor]): Arguments by name; floating-point ones
            are in float64.
        options (dict): The other arguments.
    """

    op: str
    name: str
    tensors: dict[str, Tensor]
    options: dict


def cases() -> list[Case]:
    """Small inputs of every op with edge cases, and a stage of VMamba-T."""
    stage = scan_inputs(14, 384, 24, 1, dtype=torch.float64)
    routed = 'routed_selective_scan'
    return [
        Case(routed, 'sum', *_scan_case('sum', states=1)),
        Case(
            routed,
            'sum, 16 states, 2 groups, dt in full',
            *_scan_case('sum', states=16, rank=0, groups=2),
        ),
        Case(routed, 'routes', *_scan_case('routes', states=2)),
        Case(routed, 'states', *_scan_case('states', states=3)),
        Case(routed, 'VMamba-T stage 3', stage, {}),
        Case('selective_scan', '16 states, 2 groups', *_sequence_case()),
        Case('state_fusion', 'taps', *_fusion_case(readout=False)),
        Case('state_fusion', 'read-out', *_fusion_case(readout=True)),
        Case('tree_scan', 'low rank', *_tree_case(rank=3)),
        Case('tree_scan', 'dt in full', *_tree_case(rank=0)),
    ]


def _from_seed() -> tuple[Callable[..., Tensor], torch.Generator]:
    """A function that draws random numbers, and its generator."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return rand, generator


def _scan_case(
    output: str, states: int, rank: int = 3, groups: int = 1
) -> tuple[dict[str, Tensor], dict]:
    """Three routes over 70 tokens of 40 channels, with zero tokens."""
    rand, generator = _from_seed()
    batch, tokens, channels, count = 2, 70, 40, 3
    weights = (batch, tokens, count, groups, states)
    tensors = dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, count, rank or channels),
        A=-rand(count, channels, states).abs() - 0.05,
        B=rand(*weights),
        dt_bias=rand(count, channels),
        routes=torch.randint(
            -1, tokens, (count, tokens + 5), generator=generator
        ),
    )
    if rank:
        tensors['dt_weight'] = 0.3 * rand(count, channels, rank)
    if output != 'states':
        tensors.update(C=rand(*weights), D=rand(count, channels))
    return tensors, dict(output=output)


def _sequence_case() -> tuple[dict[str, Tensor], dict]:
    rand, _ = _from_seed()
    batch, channels, states, steps = 2, 40, 16, 70
    weights = (batch, 2, states, steps)
    tensors = dict(
        u=rand(batch, channels, steps),
        delta=rand(batch, channels, steps),
        A=-rand(channels, states).abs() - 0.05,
        B=rand(*weights),
        C=rand(*weights),
        D=rand(channels),
        delta_bias=rand(channels),
    )
    return tensors, dict(delta_softplus=True)


def _fusion_case(readout: bool) -> tuple[dict[str, Tensor], dict]:
    """A map that is smaller than the filters in one direction."""
    rand, _ = _from_seed()
    size, channels = (2, 9, 4), 40
    tensors = dict(
        x=rand(*size, channels),
        weight=rand(3, channels, 3, 3),
        alpha=rand(3),
    )
    if readout:
        tensors.update(
            C=rand(*size), D=rand(channels), u=rand(*size, channels)
        )
    return tensors, {}


def _tree_case(rank: int) -> tuple[dict[str, Tensor], dict]:
    """A random tree of 70 tokens."""
    rand, generator = _from_seed()
    batch, tokens, channels = 2, 70, 40
    parents = torch.tensor(
        [-1]
        + [
            int(torch.randint(0, token, (), generator=generator))
            for token in range(1, tokens)
        ]
    )
    tensors = dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, rank or channels),
        A=-rand(channels).abs() - 0.05,
        B=rand(batch, tokens),
        dt_bias=rand(channels),
        parents=parents,
    )
    if rank:
        tensors['dt_weight'] = 0.3 * rand(channels, rank)
    return tensors, {}
