"""One call of every op at sizes that models have, for a profiler."""

import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mmssm.analysis.benchmark.routed_selective_scan import (
    SCAN_SIZES,
    scan_inputs,
)
from mmssm.analysis.benchmark.state_fusion import FUSION_SIZES, fusion_inputs
from mmssm.analysis.benchmark.tree_scan import TREE_SIZES, tree_inputs
from mmssm.ops import (
    routed_selective_scan,
    state_fusion,
    tree_scan,
)

from ..reading import CASE


def calls(
    device: torch.device, images: int
) -> Iterator[tuple[str, Callable[..., Tensor], dict]]:
    """A label, an op and its arguments."""
    wide, narrow = torch.float32, torch.bfloat16
    for stage in range(1, 5):
        size = SCAN_SIZES[f'VMamba-T stage {stage}']
        inputs = scan_inputs(*size, images, device, wide)
        yield f'scan stage {stage} float32', routed_selective_scan, inputs
    side, channels, rank, _ = SCAN_SIZES['VMamba-T stage 1']
    for label, states, batch, dtype in (
        ('bfloat16', 1, images, narrow),
        ('N 16 float32', 16, images, wide),
        # One image, whose routes are cut into segments.
        ('batch 1 float32', 1, 1, wide),
    ):
        inputs = scan_inputs(
            side, channels, rank, states, batch, device, dtype
        )
        yield f'scan stage 1 {label}', routed_selective_scan, inputs
    size = FUSION_SIZES['Spatial-Mamba-T stage 1']
    inputs = fusion_inputs(*size, images, device, narrow)
    yield 'fusion stage 1 bfloat16', state_fusion, inputs
    size = TREE_SIZES['FractalMamba-T stage 1']
    inputs = tree_inputs(*size, images, device, narrow)
    yield 'tree stage 1 bfloat16', tree_scan, inputs


def main(device: str = 'cuda', images: str = '128') -> None:
    """Say each case, so that what is profiled next has a name."""
    for label, op, inputs in calls(torch.device(device), int(images)):
        print(f'{CASE}{label}', flush=True)
        floats = [t for t in inputs.values() if t.is_floating_point()]
        for tensor in floats:
            tensor.requires_grad_()
        y = op(**inputs)
        torch.autograd.grad(y, floats, torch.randn_like(y))
        if device == 'cuda':
            torch.cuda.synchronize()


if __name__ == '__main__':
    main(*sys.argv[1:])
