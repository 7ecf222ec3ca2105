"""Compare the state fusion with the convolutions that compute it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmssm.ops import state_fusion
from mmssm.ops.state_fusion import DILATIONS

from .measure import Run, op_run
from .report import Report
from .sizes import bench_sizes, draw

# Side of the map and inner channels in Spatial-Mamba at 224 pixels, and a
# wider map.
FUSION_SIZES = {
    'Spatial-Mamba-T stage 1': (56, 128),
    'Spatial-Mamba-T stage 2': (28, 256),
    'Spatial-Mamba-T stage 3': (14, 512),
    'Spatial-Mamba-T stage 4': (7, 1024),
    'wide': (14, 1024),
}


def bench_fusion(**options: Any) -> Report:
    """Measure the state fusion and its alternatives at several sizes.

    The alternatives are those of Spatial-Mamba's code: in training, three
    dilated convolutions of padded copies; in evaluation, one 11 x 11
    convolution with merged weights. Each is measured on channels-last maps,
    the layout of mmssm, and on channels-first maps.

    Args:
        **options: ``batch``, ``rounds``, ``backward``, ``device``, ``dtype``,
            ``only`` (parts of names of :data:`FUSION_SIZES`) and ``graphs`` of
            :func:`mmssm.analysis.benchmark.sizes.bench_sizes`, which also says
            what is returned and raised.
    """
    return bench_sizes(
        'State fusion',
        FUSION_SIZES,
        fusion_inputs,
        _runs,
        ['NHWC, NCHW: memory layout of maps. Merging the weights is timed.'],
        **options,
    )


def fusion_inputs(
    side: int,
    channels: int,
    batch: int = 1,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The state fusion's arguments over a square map, from a fixed seed."""
    rand = draw(device, dtype)
    weights = torch.promote_types(dtype, torch.float32)

    return dict(
        x=rand(batch, side, side, channels),
        weight=rand(3, channels, 3, 3, like=weights),
        alpha=rand(3, like=weights),
    )


def three_convolutions(x: Tensor, weight: Tensor, alpha: Tensor) -> Tensor:
    """Convolve a padded copy with each dilated filter; x (B, C, H, W).

    Weights take the dtype of x, as under autocast.
    """
    fused = 0
    for dilation, filters, share in zip(
        DILATIONS, weight.to(x.dtype), alpha.to(x.dtype)
    ):
        fused = fused + share * F.conv2d(
            F.pad(x, (dilation,) * 4, mode='replicate'),
            filters.unsqueeze(1),
            dilation=dilation,
            groups=x.shape[1],
        )
    return fused


def one_convolution(x: Tensor, weight: Tensor, alpha: Tensor) -> Tensor:
    """One 11 x 11 convolution with merged weights; x (B, C, H, W)."""
    reach = DILATIONS[-1]
    merged = weight.new_zeros(x.shape[1], 1, 2 * reach + 1, 2 * reach + 1)
    for dilation, filters, share in zip(DILATIONS, weight, alpha):
        at = slice(reach - dilation, reach + dilation + 1, dilation)
        merged[:, :, at, at] += share * filters.unsqueeze(1)
    padded = F.pad(x, (reach,) * 4, mode='replicate')
    return F.conv2d(padded, merged.to(x.dtype), groups=x.shape[1])


def _runs(inputs: dict[str, Tensor], backward: bool) -> list[Run]:
    """All implementations, mmssm's first."""
    last = {**inputs, 'x': inputs['x'].permute(0, 3, 1, 2)}
    first = {**last, 'x': last['x'].contiguous()}
    runs = [op_run('mmssm', state_fusion, inputs, backward)]
    for name, op in (
        ('three conv2d', three_convolutions),
        ('one 11 x 11 conv2d', one_convolution),
    ):
        for order, given in (('NHWC', last), ('NCHW', first)):
            own = {n: t.detach() for n, t in given.items()}
            run = op_run(f'{name}, {order}', op, own, backward)
            run.optional = True  # not supported for every dtype and device
            runs.append(run)
    return runs
