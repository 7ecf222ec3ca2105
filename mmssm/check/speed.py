"""Measure each op, its reference and a copy of the same data."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import mmssm.ops
from mmssm.analysis.benchmark.measure import (
    Run,
    copy_bandwidth,
    measure,
    op_facts,
    op_run,
)
from mmssm.analysis.benchmark.routed_selective_scan import scan_inputs
from mmssm.analysis.benchmark.sizes import draw
from mmssm.analysis.benchmark.state_fusion import fusion_inputs
from mmssm.analysis.benchmark.tree_scan import tree_inputs

ROUNDS = 3
REFERENCE_ROUNDS = 1
# A GPU needs more images to be busy. The references are loops over steps in
# Python, so more images hardly slow them down.
IMAGES = {'cpu': 1, 'cuda': 32}


@dataclass
class Speed:
    """The time of an op: forward in inference mode, float32.

    Attributes:
        op (str): The name of the op.
        size (str): The size of its input.
        device (str): 'cpu' or 'cuda'.
        seconds (float): The op's time, the median of :data:`ROUNDS`.
        reference_seconds (float): The reference's.
        floor_seconds (float): The time to copy as many bytes as the inputs
            and the result have; no op can be quicker.
    """

    op: str
    size: str
    device: str
    seconds: float
    reference_seconds: float
    floor_seconds: float


def speed(device: str) -> Iterator[Speed]:
    """Measure every op at a size of a real model, one at a time.

    Args:
        device (str): 'cpu' or 'cuda'.
    """
    place = torch.device(device)
    bandwidth = copy_bandwidth(place)
    images = IMAGES[device]
    for op, size, inputs in (
        (
            'routed_selective_scan',
            f'{images}x28x28x192, 4 routes',
            scan_inputs(28, 192, 12, 1, images, place),
        ),
        (
            'selective_scan',
            f'{images}x768x196, 16 states',
            _sequence_inputs(768, 196, 16, images, place),
        ),
        (
            'state_fusion',
            f'{images}x28x28x256',
            fusion_inputs(28, 256, images, place),
        ),
        (
            'tree_scan',
            f'{images}x28x28x192',
            tree_inputs(28, 192, 12, images, place),
        ),
    ):
        yield _measure(op, size, inputs, bandwidth)


def _measure(
    op: str, size: str, inputs: dict[str, Tensor], bandwidth: float
) -> Speed:
    def run(name: str) -> Run:
        function = getattr(mmssm.ops, name)
        # Every op takes the map first; its name differs.
        return op_run(
            name, lambda x, **rest: function(x, **rest), inputs, False
        )

    reference = run(f'{op}_reference')
    reference.rounds = REFERENCE_ROUNDS
    device = inputs['x'].device
    results = measure(op, [run(op), reference], ROUNDS, device)
    return Speed(
        op,
        size,
        device.type,
        results[0].median,
        results[1].median,
        op_facts(inputs, False)['floor_bytes'] / bandwidth,
    )


def _sequence_inputs(
    channels: int, steps: int, states: int, batch: int, device: torch.device
) -> dict[str, Tensor]:
    """Arguments of the 1-D scan, ``u`` as 'x'."""
    rand = draw(device, torch.float32)
    return dict(
        x=rand(batch, channels, steps),
        delta=rand(batch, channels, steps).abs(),
        A=-rand(channels, states).abs() - 0.5,
        B=rand(batch, states, steps),
        C=rand(batch, states, steps),
    )
