"""Every op forward and backward on small, awkward inputs.

It checks nothing: a memory checker that watches it does.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mmssm.ops import (
    routed_selective_scan,
    selective_scan,
    state_fusion,
    tree_scan,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Batch, tokens, channels, routes, states, rank, groups. What is odd: one
# token, more channels than a block has, no low rank, several segments of
# checkpoints, tokens that no route passes.
SCANS = (
    (1, 1, 1, 1, 1, 1, 1),
    (2, 17, 33, 4, 1, 3, 1),
    (1, 65, 130, 2, 3, 0, 1),
    (2, 31, 12, 3, 16, 5, 2),
    (1, 300, 40, 2, 2, 4, 1),
)
# Batch, height, width, channels.
MAPS = ((1, 1, 1, 1), (2, 3, 7, 5), (1, 13, 40, 33))
# Batch, tokens, channels, rank.
TREES = ((1, 1, 1, 1), (2, 17, 33, 3), (1, 70, 40, 0))


class Inputs:
    """Draws tensors on the CPU, so that no other kernel runs on the GPU."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._device, self._dtype = device, dtype
        self._wide = torch.promote_types(dtype, torch.float32)

    def tokens(self, *shape: int) -> Tensor:
        """In the sweep's dtype."""
        return self._draw(shape).to(self._dtype).to(self._device)

    def weights(self, *shape: int) -> Tensor:
        """In float32 or float64."""
        return self._draw(shape).to(self._wide).to(self._device)

    def rates(self, *shape: int) -> Tensor:
        """Decay rates: negative."""
        rates = -self._draw(shape).abs() - 0.05
        return rates.to(self._wide).to(self._device)

    def indices(self, lowest: int, highest: int, *shape: int) -> Tensor:
        """Below ``highest``."""
        drawn = torch.randint(
            lowest, highest, shape, generator=self._generator
        )
        return drawn.to(self._device)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def calls(
    device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Callable[..., Tensor], dict]]:
    """Ops and their arguments."""
    draw = Inputs(device, dtype)
    for size in SCANS:
        for output in ('sum', 'routes', 'states'):
            yield routed_selective_scan, _scan(draw, output, *size)
        yield selective_scan, _sequence(draw, *size)
    for batch, height, width, channels in MAPS:
        inputs = dict(
            x=draw.tokens(batch, height, width, channels),
            weight=draw.weights(3, channels, 3, 3),
            alpha=draw.weights(3),
        )
        yield state_fusion, inputs
        readout = dict(
            C=draw.tokens(batch, height, width),
            D=draw.weights(channels),
            u=draw.tokens(batch, height, width, channels),
        )
        yield state_fusion, {**inputs, **readout}
    for size in TREES:
        yield tree_scan, _tree(draw, *size)


def _scan(
    draw: Inputs,
    output: str,
    batch: int,
    tokens: int,
    channels: int,
    routes: int,
    states: int,
    rank: int,
    groups: int,
) -> dict:
    weights = (batch, tokens, routes, groups, states)
    inputs = dict(
        x=draw.tokens(batch, tokens, channels),
        dt=draw.tokens(batch, tokens, routes, rank or channels),
        A=draw.rates(routes, channels, states),
        B=draw.tokens(*weights),
        routes=draw.indices(-1, tokens, routes, tokens),
        dt_bias=draw.weights(routes, channels),
        output=output,
    )
    if rank:
        inputs['dt_weight'] = draw.weights(routes, channels, rank)
    if output != 'states':
        inputs['C'] = draw.tokens(*weights)
        inputs['D'] = draw.weights(routes, channels)
    return inputs


def _sequence(
    draw: Inputs,
    batch: int,
    tokens: int,
    channels: int,
    routes: int,
    states: int,
    rank: int,
    groups: int,
) -> dict:
    return dict(
        u=draw.tokens(batch, channels, tokens),
        delta=draw.tokens(batch, channels, tokens),
        A=draw.rates(channels, states),
        B=draw.tokens(batch, groups, states, tokens),
        C=draw.tokens(batch, groups, states, tokens),
        D=draw.weights(channels),
        delta_softplus=True,
    )


def _tree(
    draw: Inputs, batch: int, tokens: int, channels: int, rank: int
) -> dict:
    # Each token hangs on one of the two before it.
    parents = torch.arange(tokens) - 1
    parents[2::2] -= 1
    inputs = dict(
        x=draw.tokens(batch, tokens, channels),
        dt=draw.tokens(batch, tokens, rank or channels),
        A=draw.rates(channels),
        B=draw.tokens(batch, tokens),
        parents=parents.to(draw.indices(0, 1, 1).device),
    )
    if rank:
        inputs['dt_weight'] = draw.weights(channels, rank)
    return inputs


def call(op: Callable[..., Tensor], inputs: dict) -> None:
    """Forward and backward."""
    leaves = [
        t.requires_grad_()
        for t in inputs.values()
        if isinstance(t, Tensor) and t.is_floating_point()
    ]
    y = op(**inputs)
    grad = torch.ones(y.shape, dtype=y.dtype).to(y.device)
    torch.autograd.grad(y, leaves, grad)


def main(device: str = 'cuda') -> None:
    """All dtypes, and once more in the deterministic order."""
    count = 0
    for dtype in DTYPES:
        for op, inputs in calls(torch.device(device), dtype):
            call(op, inputs)
            count += 1
    # The order of sums that never changes takes another path.
    torch.use_deterministic_algorithms(True)
    for op, inputs in calls(torch.device(device), torch.float32):
        call(op, inputs)
        count += 1
    if device == 'cuda':
        torch.cuda.synchronize()
    print(f'swept {count} calls')


if __name__ == '__main__':
    main(*sys.argv[1:])
