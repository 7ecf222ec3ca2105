"""Row-major and column-major routes.

VMamba's cross-scan takes both of them, forward and backward.
"""

import numpy as np

from .route import register_route


@register_route('h')
def horizontal(height: int, width: int) -> np.ndarray:
    """Row after row, each from left to right."""
    return np.arange(height * width)


@register_route('v')
def vertical(height: int, width: int) -> np.ndarray:
    """Column after column, each from top to bottom."""
    return np.arange(height * width).reshape(height, width).T.ravel()
