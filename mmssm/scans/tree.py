"""Fixed trees over the tokens of an H x W map, for :func:`tree_scan`."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..ops.tree_scan import find_order
from .route import route_indices


@lru_cache(maxsize=512)
def tree_parents(
    order: str, height: int, width: int, pathways: float
) -> np.ndarray:
    """The parent of every token: the one before it on a route, or earlier.

    The route is a path from its first token, the root. A share of the tokens,
    ``pathways``, leave it: those whose earliest neighbour on the map (above,
    below, left or right) lies farthest back on the route hang on that
    neighbour instead. Of those for whom it lies equally far, as in rows, the
    last to be taken are spread evenly over the route. Parents come earlier on
    the route, so it is a tree for any choice; the share does not depend on the
    map's size.

    Args:
        order (str): A route without zero tokens.
        height (int): Rows of the map.
        width (int): Columns of the map.
        pathways (float): Share of tokens, 0 (the plain route) to 1.

    Returns:
        np.ndarray: (H * W,) int32 token indices, -1 for the root; read-only.

    Raises:
        ValueError: If the route has zero tokens or the share is not one.
    """
    route = route_indices(order, height, width)
    if (route < 0).any():
        raise ValueError(
            f'a tree needs a route without zero tokens, got {order!r} on a '
            f'{height} x {width} map'
        )
    if not 0 <= pathways <= 1:
        raise ValueError(
            f'pathways must be a share of tokens, 0 to 1, got {pathways}'
        )
    tokens = height * width
    parents = np.full(tokens, -1, np.int32)
    parents[route[1:]] = route[:-1]
    earliest = _earliest_neighbour(route, height, width)
    step = np.empty(tokens, int)
    step[route] = np.arange(tokens)
    gap = (step - step[earliest])[route]
    leaving = route[_farthest(gap, round(pathways * tokens))]
    parents[leaving] = earliest[leaving]
    parents.flags.writeable = False
    return parents


def _farthest(gap: np.ndarray, count: int) -> np.ndarray:
    """Where the ``count`` largest gaps are, in steps of the route.

    A gap of one step is the route itself and never among them.
    """
    count = min(count, int((gap > 1).sum()))
    if count == 0:
        return np.empty(0, int)
    least = np.partition(gap, -count)[-count]
    sure, equal = np.flatnonzero(gap > least), np.flatnonzero(gap == least)
    still = count - len(sure)
    return np.append(sure, equal[np.arange(still) * len(equal) // still])


def _earliest_neighbour(
    route: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Of each token and its neighbours the one that the route meets first."""
    step = np.empty(height * width, int)
    step[route] = np.arange(height * width)
    padded = np.pad(
        step.reshape(height, width), 1, constant_values=height * width
    )
    around = [
        padded[1:-1, 1:-1],
        padded[:-2, 1:-1],
        padded[2:, 1:-1],
        padded[1:-1, :-2],
        padded[1:-1, 2:],
    ]
    return route[np.min(around, 0)].ravel()


# As with routes: few, since they lie on the device.
@lru_cache(maxsize=64)
def _on_device(
    order: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    steps = find_order(tree_parents(order, height, width, pathways))
    # Inference mode's tensors could not be used outside of it.
    with torch.inference_mode(False):
        return torch.tensor(steps, device=device)


# An op for the same reason as routes' one: tracing sees one node.
@torch.library.custom_op('mmssm::map_tree', mutates_args=())
def _tree_op(
    order: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    return _on_device(order, height, width, pathways, device).clone()


@_tree_op.register_fake
def _(order, height, width, pathways, device):
    return torch.empty((2, height * width), dtype=torch.int32, device=device)


def cached_tree(
    order: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    """:func:`tree_parents` on a device, ready for :func:`tree_scan`.

    Returns:
        Tensor: (2, H * W) int32, not to be changed, what
        :func:`mmssm.ops.tree_order` makes of the parents.
    """
    if torch.jit.is_tracing():
        # The JIT tracer, which counts FLOPs, cannot record a device argument.
        parents = tree_parents(order, int(height), int(width), pathways)
        return torch.tensor(find_order(parents), device=device)
    if torch.compiler.is_compiling() or _get_current_dispatch_mode():
        return _tree_op(order, height, width, pathways, device)
    return _on_device(order, height, width, pathways, device)
