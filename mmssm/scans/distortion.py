"""How far apart neighbors on the map are visited by a route."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mmssm.utils import UserError

from .route import check_indices, route_indices


def token_distortion(
    route: str | Sequence[int] | np.ndarray, height: int, width: int
) -> np.ndarray:
    """Structural distortion of every token.

    The score SDS(i) of `FractalMamba++ <https://arxiv.org/abs/2505.14062>`_:
    the sum of abs(p_i - p_j) over the tokens j above, below, left and right
    of i, where p is the step at which the route visits a token. Zero tokens
    take a step, too.

    Args:
        route (str | Sequence[int] | np.ndarray): A route's name, or its token
            indices (T,), -1 for a zero token.
        height (int): Rows of the map.
        width (int): Columns of the map.

    Returns:
        np.ndarray: (H, W) integers, in steps.

    Raises:
        UserError: If the route is unknown or does not visit every token
            once, or if the map is empty.
    """
    if isinstance(route, str):
        indices = route_indices(route, height, width)
    else:
        indices = np.asarray(route)
        check_indices('<indices>', indices, height, width)
    (steps,) = np.nonzero(indices >= 0)
    step = np.empty(height * width, int)
    step[indices[steps]] = steps
    step_map = step.reshape(height, width)
    score = np.zeros_like(step_map)
    between_rows = np.abs(np.diff(step_map, axis=0))
    score[1:] += between_rows
    score[:-1] += between_rows
    between_columns = np.abs(np.diff(step_map, axis=1))
    score[:, 1:] += between_columns
    score[:, :-1] += between_columns
    return score


def structural_distortion(
    route: str | Sequence[int] | np.ndarray,
    height: int,
    width: int,
    average: Literal['arithmetic', 'geometric'] = 'geometric',
) -> float:
    """Mean of :func:`token_distortion` over all tokens of a map.

    The two means answer different questions. The arithmetic mean adds up all
    distances. A Hilbert curve keeps most neighbors together but separates
    those at its topmost joints by half the map: on a square its arithmetic
    mean is larger than that of plain rows. The geometric mean tells what a
    typical token sees. There the Hilbert curve is better than rows and
    windows, and the difference grows with the map.

    Args:
        route (str | Sequence[int] | np.ndarray): A route's name, or its token
            indices (T,), -1 for a zero token.
        height (int): Rows of the map.
        width (int): Columns of the map.
        average (str): 'geometric' or 'arithmetic'. Defaults to 'geometric'.

    Returns:
        float: In steps; 0 on a map of one token.

    Raises:
        UserError: If the route is unknown or does not visit every token
            once, if the map is empty, or if there is no such average.
    """
    score = token_distortion(route, height, width)
    if average == 'arithmetic':
        return float(score.mean())
    if average != 'geometric':
        raise UserError(
            f"average must be 'arithmetic' or 'geometric', got {average!r}"
        )
    # A single token has no neighbor: its score is 0, without a logarithm.
    return float(np.exp(np.log(score).mean())) if score.all() else 0.0
