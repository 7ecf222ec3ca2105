"""Work on slices of a map, which stay in a CPU's cache."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..scans.route import is_jit_tracing

# The most that a slice may take: half of a usual last-level cache. Smaller
# slices need less memory, but read the weights more often: with 4 MiB VMamba-T
# takes 1 to 2 % longer, with 1 MiB longer than without slices.
SLICE_BYTES = 16 * 2**20


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether code may choose the faster of two ways by the size of a map.

    It may not where it is traced, compiled or exported: the choice would then
    hold for maps of all sizes.
    """
    return (
        x.device.type == 'cpu'
        and not torch.compiler.is_compiling()
        and not is_jit_tracing()
    )


def by_slices(
    function: Callable[..., Tensor],
    *maps: Tensor,
    width: int,
    owner: nn.Module,
) -> Tensor:
    """``function(*maps)``, computed slice by slice where that is faster.

    It is faster on a CPU where no gradient is recorded. The function's
    intermediate results are then small and stay in the cache; those of a
    whole map would be written to memory and read back. Where a module has a
    hook, the hook gets the whole map.

    Args:
        function (Callable): Takes maps (..., C_i) and returns a map (..., C).
            It must treat every token by itself.
        *maps (Tensor): Maps (..., C_i) with the same leading axes.
        width (int): Channels of the function's widest intermediate result.
        owner (nn.Module): Has all the modules that ``function`` calls.

    Returns:
        Tensor: (..., C).
    """
    first = maps[0]
    if torch.is_grad_enabled() or not runs_eagerly_on_cpu(first):
        return function(*maps)
    axes = first.shape[:-1]
    num_tokens = axes.numel()
    size = num_tokens * width * first.element_size()
    if size <= SLICE_BYTES or has_hooks(owner):
        return function(*maps)
    count = math.ceil(size / SLICE_BYTES)
    slices = zip(*(m.flatten(0, -2).chunk(count) for m in maps))
    result = function(*next(slices))
    out = result.new_empty(num_tokens, result.shape[-1])
    end = len(result)
    out[:end] = result
    for part in slices:
        result = function(*part)
        start, end = end, end + len(result)
        out[start:end] = result
    return out.unflatten(0, axes)


def has_hooks(owner: nn.Module) -> bool:
    """Whether a module or one in it has a forward hook."""
    return any(
        module._forward_hooks or module._forward_pre_hooks
        for module in owner.modules()
    )
