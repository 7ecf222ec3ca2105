"""Hilbert curves on maps of any size, for FractalMamba.

`Scalable Visual State Space Model with Fractal Scanning
<https://arxiv.org/abs/2405.14480>`_ scans along a Hilbert curve, which exists
on squares of 2^k x 2^k tokens only. Its authors released no code and do not
say what they do elsewhere: these curves, and how far they are shifted, are
ours.
"""

import numpy as np

from .route import register_route

# The first paper scans in four directions, which it does not name: a map's
# curve and its transpose's, forwards and backwards, as VMamba's four are.
HILBERT = ('hilbert', 'hilbert_t', 'hilbert_flip', 'hilbert_t_flip')
HILBERT_SHIFT = (
    'hilbert_shift',
    'hilbert_t_shift',
    'hilbert_shift_flip',
    'hilbert_t_shift_flip',
)


@register_route('hilbert')
def hilbert(height: int, width: int) -> np.ndarray:
    """Hilbert curve from the bottom left to the bottom right corner.

    Those are the corners in the authors' figure. Every step leads to a token
    beside the last one. Where the width is odd and the height even no such
    path has these ends, as on a chessboard: there one step is diagonal, or in
    two rows the last token is the one before the corner. In a single column
    the route goes up.
    """
    rows, columns = _curve_points(height, width)
    return rows * width + columns


@register_route('hilbert_t')
def hilbert_transposed(height: int, width: int) -> np.ndarray:
    """The transposed map's ``hilbert``, from the top to the bottom right."""
    columns, rows = _curve_points(width, height)
    return rows * width + columns


@register_route('hilbert_shift')
def hilbert_shifted(height: int, width: int) -> np.ndarray:
    """``hilbert`` with blocks that begin elsewhere.

    The curve turns from block to block, and where two blocks meet neighbours
    can be far apart on it. This curve is that of a map twice as high and wide,
    of which the given one is a part, a third of its height and width away
    from the corner. A third is never near a half, a quarter or an eighth:
    most neighbours that the joints of ``hilbert`` part lie within a block of
    this one. Where the curve leaves the map, at a token of its border, the
    route goes on at that where it returns.
    """
    rows, columns = _shifted_points(height, width)
    return rows * width + columns


@register_route('hilbert_t_shift')
def hilbert_transposed_shifted(height: int, width: int) -> np.ndarray:
    """The transposed map's ``hilbert_shift``."""
    columns, rows = _shifted_points(width, height)
    return rows * width + columns


def _curve_points(height: int, width: int) -> np.ndarray:
    """Rows and columns (2, H * W) of the curve's tokens."""
    columns, heights = _curve(width, height, {})
    return np.stack([height - 1 - heights, columns])


def _shifted_points(height: int, width: int) -> np.ndarray:
    points = _curve_points(2 * height, 2 * width)
    points -= [[height // 3], [width // 3]]
    inside = (points >= 0) & (points < [[height], [width]])
    return points[:, inside.all(0)]


def _curve(
    along: int, across: int, known: dict[tuple[int, int], np.ndarray]
) -> np.ndarray:
    """Curve through a rectangle, from one end of its base to the other.

    A long rectangle is cut into two that follow each other. Any other is cut
    into three: up the left of its base, along the rest and down the right. All
    are curves of the same kind, turned. The cut leaves an even number of
    tokens along a new base, so that a chessboard allows its ends.

    Args:
        along (int): Tokens along the base.
        across (int): Tokens across it.
        known (dict): Curves by these two. They are few, whatever the size.

    Returns:
        np.ndarray: Positions (2, along * across) along and across the base,
        from (0, 0) to (along - 1, 0) if a chessboard has such a path.
    """
    if (along, across) in known:
        return known[along, across]
    if along == 1 or across == 1:
        curve = np.indices((along, across)).reshape(2, -1)
    elif 2 * along > 3 * across:
        cut = _even_half(along)
        first = _curve(cut, across, known)
        second = _curve(along - cut, across, known)
        curve = np.concatenate([first, second + [[cut], [0]]], 1)
    else:
        left, cut = along // 2, _even_half(across)
        up = _curve(cut, left, known)[::-1]
        over = _curve(along, across - cut, known) + [[0], [cut]]
        down = _curve(cut, along - left, known)[::-1]
        down = [[along - 1], [cut - 1]] - down
        curve = np.concatenate([up, over, down], 1)
    known[along, across] = curve
    return curve


def _even_half(length: int) -> int:
    half = length // 2
    return half + 1 if half % 2 and length > 2 else half
