"""How far a route takes the neighbours of a map from each other."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .route import _check_indices, route_indices


def token_distortion(
    route: str | Sequence[int] | np.ndarray, height: int, width: int
) -> np.ndarray:
    """Structural distortion of every token.

    The score SDS(i) of `FractalMamba++ <https://arxiv.org/abs/2505.14062>`_:
    the sum of abs(p_i - p_j) over the tokens j above, below, left and right
    of i, p being the step at which the route visits a token. Zero tokens take
    a step, too.

    Args:
        route (str | Sequence[int] | np.ndarray): A route's name, or the token
            indices (T,) of one, -1 for a zero token.
        height (int): Rows of the map.
        width (int): Columns of the map.

    Returns:
        np.ndarray: (H, W) integers, in steps.

    Raises:
        ValueError: If the route is unknown or does not visit every token
            once, or the map has no token.
    """
    if isinstance(route, str):
        indices = route_indices(route, height, width)
    else:
        indices = np.asarray(route)
        if height < 1 or width < 1:
            raise ValueError(
                f'a route needs a map, got {height} x {width} tokens'
            )
        _check_indices('<indices>', indices, height, width)
    (steps,) = np.nonzero(indices >= 0)
    position = np.empty(height * width, int)
    position[indices[steps]] = steps
    position = position.reshape(height, width)
    score = np.zeros_like(position)
    between_rows = np.abs(np.diff(position, axis=0))
    score[1:] += between_rows
    score[:-1] += between_rows
    between_columns = np.abs(np.diff(position, axis=1))
    score[:, 1:] += between_columns
    score[:, :-1] += between_columns
    return score


def structural_distortion(
    route: str | Sequence[int] | np.ndarray,
    height: int,
    width: int,
    average: Literal['arithmetic', 'geometric'] = 'geometric',
) -> float:
    """Mean of :func:`token_distortion` over a map's tokens.

    The means answer different questions. The arithmetic one adds up all
    distances: a route that keeps most neighbours together and separates some
    by half the map, as every Hilbert curve does at its topmost joints, pays
    for those, and on a square comes out above plain rows. The geometric one is
    what a typical token meets: there the Hilbert curve is below rows and
    windows, and its lead grows with the map.

    Args:
        route (str | Sequence[int] | np.ndarray): A route's name, or the token
            indices (T,) of one, -1 for a zero token.
        height (int): Rows of the map.
        width (int): Columns of the map.
        average (str): 'geometric' or 'arithmetic'. Defaults to 'geometric'.

    Returns:
        float: In steps; 0 on a map of one token.

    Raises:
        ValueError: If the route is unknown or does not visit every token
            once, the map has no token, or there is no such average.
    """
    score = token_distortion(route, height, width)
    if average == 'arithmetic':
        return float(score.mean())
    if average != 'geometric':
        raise ValueError(
            f"average must be 'arithmetic' or 'geometric', got {average!r}"
        )
    # Only a single token has no neighbour, and then no logarithm.
    return float(np.exp(np.log(score).mean())) if score.all() else 0.0
