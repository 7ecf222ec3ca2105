"""Hilbert curves: unbroken wherever that is possible, on maps of any size."""

import zlib

import numpy as np
import pytest

from mmssm.scans import CROSS, HILBERT, route_indices, routes

LARGEST = 64


def points(name, height, width):
    """Rows and columns of the tokens in the route's order."""
    return np.divmod(route_indices(name, height, width), width)


def all_sizes(largest):
    for height in range(1, largest + 1):
        for width in range(1, largest + 1):
            yield height, width


def steps_by_kind(rows, columns):
    """Number of steps to a token beside, of diagonal ones, of longer ones."""
    down, right = np.abs(np.diff(rows)), np.abs(np.diff(columns))
    beside = int((down + right == 1).sum())
    diagonal = int(((down == 1) & (right == 1)).sum())
    return beside, diagonal, len(rows) - 1 - beside - diagonal


def step_of_tokens(name, height, width):
    step = np.empty(height * width, int)
    step[route_indices(name, height, width)] = np.arange(height * width)
    return step.reshape(height, width)


def neighbor_gaps(name, height, width):
    """Steps between the tokens of every pair of neighbors."""
    step = step_of_tokens(name, height, width)
    gaps = [np.abs(np.diff(step, axis=axis)).ravel() for axis in (0, 1)]
    return np.concatenate(gaps)


def test_every_token_once_and_one_diagonal_step_where_parity_asks():
    for height, width in all_sizes(LARGEST):
        route = route_indices('hilbert', height, width)
        assert np.array_equal(np.sort(route), np.arange(height * width))
        rows, columns = np.divmod(route, width)
        # On a chessboard, a path of unit steps over an even number of fields
        # begins and ends on different colors. These corners may have one.
        odd = ends_of_one_color(height, width) and height > 2
        want = (height * width - 1 - odd, int(odd), 0)
        assert steps_by_kind(rows, columns) == want, (height, width)


def ends_of_one_color(height, width):
    return width > 1 and width % 2 == 1 and height % 2 == 0


def test_ends_at_both_corners_of_the_bottom():
    for height, width in all_sizes(20):
        rows, columns = points('hilbert', height, width)
        assert (rows[0], columns[0]) == (height - 1, 0)
        last = (height - 1, width - 1) if width > 1 else (0, 0)
        if height == 2 and ends_of_one_color(height, width):
            last = (1, width - 2)  # instead of a diagonal step
        assert (rows[-1], columns[-1]) == last, (height, width)


@pytest.mark.parametrize('name', ['hilbert', 'hilbert_shift'])
def test_transposed_route_is_that_of_the_transposed_map(name):
    transposed = name.replace('hilbert', 'hilbert_t')
    for height, width in all_sizes(20):
        columns, rows = points(name, width, height)
        got = route_indices(transposed, height, width)
        assert np.array_equal(got, rows * width + columns)


def classic(bits):
    """Hilbert's own curve on 2^bits x 2^bits, by bits of a token's step."""
    steps = np.arange(4**bits)
    x, y = np.zeros_like(steps), np.zeros_like(steps)
    for level in range(bits):
        side = 2**level
        quarter = steps >> 2 * level & 3
        first, last = quarter == 0, quarter == 3
        turned_x = np.where(last, side - 1 - y, np.where(first, y, x))
        turned_y = np.where(last, side - 1 - x, np.where(first, x, y))
        x = turned_x + side * (quarter >= 2)
        y = turned_y + side * ((quarter == 1) | (quarter == 2))
    return x, y


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 5, 6])
def test_powers_of_two_have_hilberts_own_curve(bits):
    rows, columns = points('hilbert', 2**bits, 2**bits)
    x, y = classic(bits)
    assert np.array_equal(columns, x)
    assert np.array_equal(2**bits - 1 - rows, y)


def test_four_routes_are_two_curves_and_their_reverses():
    got = routes(HILBERT, 2, 2).tolist()
    assert got == [[2, 0, 1, 3], [1, 0, 2, 3], [3, 1, 0, 2], [3, 2, 0, 1]]
    assert len(HILBERT) == len(CROSS)
    assert routes(HILBERT, 25, 42).shape == (4, 25 * 42)


@pytest.mark.parametrize('height, width', [(1, 1), (14, 14), (25, 42)])
def test_shifted_curve_is_a_part_of_a_larger_one(height, width):
    want = []
    for token in route_indices('hilbert', 2 * height, 2 * width).tolist():
        row, column = divmod(token, 2 * width)
        row, column = row - height // 3, column - width // 3
        if 0 <= row < height and 0 <= column < width:
            want.append(row * width + column)
    assert route_indices('hilbert_shift', height, width).tolist() == want


@pytest.mark.parametrize('name', ['hilbert_shift', 'hilbert_t_shift'])
def test_shifted_curve_breaks_only_at_the_border(name):
    for height, width in all_sizes(32):
        route = route_indices(name, height, width)
        assert np.array_equal(np.sort(route), np.arange(height * width))
        rows, columns = np.divmod(route, width)
        border = (rows % height == 0) | (rows == height - 1)
        border |= (columns == 0) | (columns == width - 1)
        far = np.abs(np.diff(rows)) + np.abs(np.diff(columns)) > 1
        assert border[:-1][far].all() and border[1:][far].all()
        # A few times, that is.
        assert far.sum() <= (height + width) / 2


@pytest.mark.parametrize('size', [(28, 28), (56, 56), (64, 64), (25, 42)])
def test_shifted_curve_joins_what_the_curve_parts(size):
    curve = neighbor_gaps('hilbert', *size)
    both = np.minimum(curve, neighbor_gaps('hilbert_shift', *size))
    assert both.mean() < 0.25 * curve.mean()
    # Topmost joints part neighbors by a large share of the whole route.
    assert curve.max() > 0.4 * size[0] * size[1]
    assert both.max() < 0.06 * size[0] * size[1]
    # Their blocks being the same ones, the transposed curve does less.
    transposed = neighbor_gaps('hilbert_t', *size)
    assert both.mean() < np.minimum(curve, transposed).mean()


# What trained weights depend on: the properties above leave a choice.
@pytest.mark.parametrize(
    'height, width, checksums',
    [
        (7, 7, ('eadadd3f', 'af286fd6')),
        (14, 14, ('8d3ab655', '718da361')),
        (28, 28, ('468365cc', '30d212c3')),
        (56, 56, ('89108bcc', 'c8c9e574')),
        (25, 42, ('4f58220e', '2936067a')),
    ],
)
def test_curves_stay_the_same(height, width, checksums):
    for name, checksum in zip(('hilbert', 'hilbert_shift'), checksums):
        route = route_indices(name, height, width).astype(np.int32)
        assert f'{zlib.crc32(route):08x}' == checksum
