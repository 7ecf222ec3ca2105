"""Hilbert curves on maps of any size, for FractalMamba.

`Scalable Visual State Space Model with Fractal Scanning
<https://arxiv.org/abs/2405.14480>`_ scans along a Hilbert curve, which is
defined on squares of 2^k x 2^k tokens only. The authors released no code and
do not say what they do on other maps. The curves for those, and how far they
are shifted, are our choice.
"""

import numpy as np

from .route import register_route

# The paper scans along four routes but does not name them. We take the curves
# of the map and of the transposed map, forward and backward, as VMamba does
# with rows and columns.
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

    Those are the corners in the authors' figure. Every step leads to a
    neighbor, with one exception: where the width is odd and the height even,
    no such path joins these corners (color the map as a chessboard to see
    it). There one step is diagonal; in two rows the curve ends one token
    before the corner instead. In a single column the curve goes up.
    """
    rows, columns = _curve_points(height, width)
    return rows * width + columns


@register_route('hilbert_t')
def hilbert_transposed(height: int, width: int) -> np.ndarray:
    """``hilbert`` of the transposed map: top right to bottom right corner."""
    columns, rows = _curve_points(width, height)
    return rows * width + columns


@register_route('hilbert_shift')
def hilbert_shifted(height: int, width: int) -> np.ndarray:
    """``hilbert`` with its joints at other places.

    Where two blocks of a Hilbert curve meet, neighbors can be far apart on
    it. This curve is a part of the curve on a map twice as high and wide: the
    part that begins at a third of the height and width. A third is never near
    a half, a quarter or an eighth, so most neighbors that ``hilbert``
    separates lie within one block of this curve. Where the large curve leaves
    the part, the route goes on at the token where it comes back.
    """
    rows, columns = _shifted_points(height, width)
    return rows * width + columns


@register_route('hilbert_t_shift')
def hilbert_transposed_shifted(height: int, width: int) -> np.ndarray:
    """``hilbert_shift`` of the transposed map."""
    columns, rows = _shifted_points(width, height)
    return rows * width + columns


def _curve_points(height: int, width: int) -> np.ndarray:
    """Rows and columns (2, H * W) of the curve's tokens."""
    columns, heights = _curve(width, height, {})
    return np.stack([height - 1 - heights, columns])


def _shifted_points(height: int, width: int) -> np.ndarray:
    """Rows and columns (2, H * W) of the shifted curve's tokens."""
    points = _curve_points(2 * height, 2 * width)
    points -= [[height // 3], [width // 3]]
    inside = (points >= 0) & (points < [[height], [width]])
    return points[:, inside.all(0)]


def _curve(
    along: int, across: int, known: dict[tuple[int, int], np.ndarray]
) -> np.ndarray:
    """Curve through a rectangle, from one end of its base to the other.

    A rectangle with a long base is cut into two, one after the other. Any
    other is cut into three: the curve goes up at the left of the base, along
    the part above, and down at the right. The parts have curves of the same
    kind, turned. A cut leaves an even number of tokens along a new base, so
    that a path of unit steps can join the ends of that base.

    Args:
        along (int): Tokens along the base.
        across (int): Tokens across it.
        known (dict): Curves found so far, by ``(along, across)``. They are
            few, whatever the map's size.

    Returns:
        np.ndarray: Positions (2, along * across) along and across the base,
        from (0, 0) to (along - 1, 0) if there is such a path.
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


def _even_half(count: int) -> int:
    """About half of ``count``, even where ``count`` is more than 2."""
    half = count // 2
    return half + 1 if half % 2 and count > 2 else half
