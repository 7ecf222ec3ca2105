"""Routes through windows, of `LocalMamba <https://arxiv.org/abs/2403.09338>`_."""

import numpy as np

from .route import ZERO_TOKEN, register_sized_route


@register_sized_route('w')
def windowed(height: int, width: int, size: int) -> np.ndarray:
    """Windows of ``size`` x ``size`` tokens, one after the other.

    Windows are visited row after row, and so are the tokens of a window. At
    the bottom and the right, a window that leaves the map is filled up with
    zero tokens.
    """
    rows, columns = -(-height // size), -(-width // size)
    grid = np.full((rows * size, columns * size), ZERO_TOKEN)
    grid[:height, :width] = np.arange(height * width).reshape(height, width)
    windows = grid.reshape(rows, size, columns, size).swapaxes(1, 2)
    return windows.ravel()
