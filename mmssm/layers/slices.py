"""Work on a map a slice of tokens at a time, so that it stays in the cache."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# What a slice may take, about the second-level caches of two cores. Smaller
# ones read the weights too often: 1 MiB is slower than no slices at all.
SLICE_BYTES = 4 * 2**20


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether a choice by size may be made here for speed on a CPU.

    What is traced, compiled or exported must hold for every size.
    """
    return (
        x.device.type == 'cpu'
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def by_slices(
    function: Callable[..., Tensor], *maps: Tensor, width: int
) -> Tensor:
    """``function(*maps)``, on slices of tokens where that is faster.

    That is on a CPU where no gradient is recorded: what lies between the
    function's steps is then small and reused, where it would be as large as
    the map, freshly allocated and read back from memory. Hooks on modules
    inside ``function`` then see the slices.

    Args:
        function (Callable): Acts on every token alone: from maps
            (..., C_i) to a map (..., C).
        *maps (Tensor): Maps (..., C_i) with the same leading axes.
        width (int): Channels of the widest map between the function's steps.

    Returns:
        Tensor: (..., C).
    """
    first = maps[0]
    if torch.is_grad_enabled() or not runs_eagerly_on_cpu(first):
        return function(*maps)
    axes = first.shape[:-1]
    size = axes.numel() * width * first.element_size()
    if size <= SLICE_BYTES:
        return function(*maps)
    count = math.ceil(size / SLICE_BYTES)
    slices = zip(*(m.flatten(0, -2).chunk(count) for m in maps))
    out, start = None, 0
    for part in slices:
        result = function(*part)
        if out is None:
            out = result.new_empty(axes.numel(), result.shape[-1])
        out[start : start + len(result)] = result
        start += len(result)
    return out.unflatten(0, axes)
