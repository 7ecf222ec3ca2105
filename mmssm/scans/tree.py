"""Fixed trees over the tokens of an H x W map, for :func:`tree_scan`."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mmssm.utils import UserError

from ..ops.tree_scan import find_order
from .route import is_jit_tracing, is_recorded, route_indices


@lru_cache(maxsize=512)
def tree_parents(
    curve: str, height: int, width: int, pathways: float
) -> np.ndarray:
    """The parent of every token in a tree along a curve.

    The curve's first token is the root, and every other token's parent is the
    token before it on the curve. A share of the tokens, ``pathways``, get
    another parent: their earliest neighbor, which is the one of the tokens
    above, below, left and right that the curve visits first. Chosen are the
    tokens that come most steps after their earliest neighbor. Where more
    tokens than needed come equally many steps after it, as with rows, they
    are chosen at even distances along the curve.

    Every parent comes earlier on the curve than its children, so the result
    is a tree for any share. The share is the same for maps of all sizes.

    Args:
        curve (str): A route without zero tokens.
        height (int): Rows of the map.
        width (int): Columns of the map.
        pathways (float): Share of tokens whose parent is their earliest
            neighbor, from 0 (the plain curve) to 1.

    Returns:
        np.ndarray: (H * W,) int32 token indices, -1 for the root; read-only.

    Raises:
        UserError: If the route is unknown or has zero tokens, or if
            ``pathways`` is not between 0 and 1.
    """
    route = route_indices(curve, height, width)
    if (route < 0).any():
        raise UserError(
            f'a tree needs a route without zero tokens, got {curve!r} on a '
            f'{height} x {width} map'
        )
    if not 0 <= pathways <= 1:
        raise UserError(
            f'pathways must be a share of tokens, 0 to 1, got {pathways}'
        )
    length = height * width
    step = np.empty(length, int)
    step[route] = np.arange(length)
    parents = np.full(length, -1, np.int32)
    parents[route[1:]] = route[:-1]
    earliest = route[_earliest_step(step.reshape(height, width))]
    distances = (step - step[earliest])[route]
    chosen = route[_longest_steps(distances, round(pathways * length))]
    parents[chosen] = earliest[chosen]
    parents.flags.writeable = False
    return parents


def _earliest_step(step_map: np.ndarray) -> np.ndarray:
    """When each token or its first visited neighbor is visited, (H * W,).

    The argument holds the step of every token, (H, W).
    """
    padded = np.pad(step_map, 1, constant_values=step_map.size)
    token_and_neighbors = [
        padded[1:-1, 1:-1],
        padded[:-2, 1:-1],
        padded[2:, 1:-1],
        padded[1:-1, :-2],
        padded[1:-1, 2:],
    ]
    return np.min(token_and_neighbors, 0).ravel()


def _longest_steps(distances: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` largest distances, in steps along the curve.

    A distance of one step is the curve itself and is never chosen.
    """
    count = min(count, int((distances > 1).sum()))
    if count == 0:
        return np.empty(0, int)
    smallest = np.partition(distances, -count)[-count]
    larger = np.flatnonzero(distances > smallest)
    equal = np.flatnonzero(distances == smallest)
    missing = count - len(larger)
    evenly = np.arange(missing) * len(equal) // missing
    return np.append(larger, equal[evenly])


# Only 64: these take memory on the device.
@lru_cache(maxsize=64)
def _on_device(
    curve: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    tree = find_order(tree_parents(curve, height, width, pathways))
    # A tensor made in inference mode could not be used outside of it.
    with torch.inference_mode(False):
        return torch.tensor(tree, device=device)


# A custom op for the same reason as that of the routes: tracing sees one node.
@torch.library.custom_op('mmssm::map_tree', mutates_args=())
def _tree_op(
    curve: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    return _on_device(curve, height, width, pathways, device).clone()


@_tree_op.register_fake
def _(
    curve: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    return torch.empty((2, height * width), dtype=torch.int32, device=device)


def cached_tree(
    curve: str, height: int, width: int, pathways: float, device: torch.device
) -> Tensor:
    """The tree of :func:`tree_parents` on a device, for :func:`tree_scan`.

    It comes from a cache: the result must not be changed.

    Returns:
        Tensor: (2, H * W) int32, order and parents, what
        :func:`mmssm.ops.tree_order` makes of the parents.
    """
    if is_jit_tracing():
        parents = tree_parents(curve, int(height), int(width), pathways)
        return torch.tensor(find_order(parents), device=device)
    if is_recorded():
        return _tree_op(curve, height, width, pathways, device)
    return _on_device(curve, height, width, pathways, device)
