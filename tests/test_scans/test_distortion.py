"""The score against plain loops, and how it ranks the routes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmssm.scans import (
    route_indices,
    structural_distortion,
    token_distortion,
)

MAPS = [(14, 14), (28, 28), (56, 56), (25, 42)]
OTHERS = ['h', 'v', 'w2', 'w3', 'w4', 'w7', 'w14']


def plain_scores(indices, height, width):
    """SDS of every token, one by one."""
    step = {token: step for step, token in enumerate(indices) if token >= 0}
    scores = []
    for token in range(height * width):
        row, column = divmod(token, width)
        score = 0
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            if 0 <= row + down < height and 0 <= column + right < width:
                beside = (row + down) * width + column + right
                score += abs(step[token] - step[beside])
        scores.append(score)
    return scores


def back_and_forth(height, width):
    """Rows, every second one from right to left."""
    tokens = np.arange(height * width).reshape(height, width).copy()
    tokens[1::2] = tokens[1::2, ::-1]
    return tokens.ravel()


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    zero_tokens=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_any_order_scores_as_in_plain_loops(height, width, zero_tokens, seed):
    tokens = np.pad(
        np.arange(height * width), (0, zero_tokens), constant_values=-1
    )
    indices = np.random.default_rng(seed).permutation(tokens)
    want = plain_scores(indices.tolist(), height, width)
    got = token_distortion(indices, height, width)
    assert got.shape == (height, width)
    assert got.ravel().tolist() == want
    mean = structural_distortion(indices, height, width, 'arithmetic')
    assert mean == pytest.approx(sum(want) / len(want))
    typical = structural_distortion(indices, height, width)
    if height * width > 1:
        want = math.exp(sum(map(math.log, want)) / len(want))
    else:
        want = 0
    assert typical == pytest.approx(want)


@pytest.mark.parametrize('name', ['h', 'v_flip', 'w3', 'hilbert_shift'])
def test_name_and_indices_score_alike(name):
    indices = route_indices(name, 7, 10)
    want = plain_scores(indices.tolist(), 7, 10)
    for route in (name, indices, indices.tolist()):
        assert token_distortion(route, 7, 10).ravel().tolist() == want
    back = token_distortion(indices[::-1], 7, 10)
    assert back.ravel().tolist() == want


@pytest.mark.parametrize('height, width', MAPS)
@pytest.mark.parametrize('curve', ['hilbert', 'hilbert_t'])
def test_typical_token_is_nearest_on_the_hilbert_curve(curve, height, width):
    typical = structural_distortion(curve, height, width)
    for route in (*OTHERS, back_and_forth(height, width)):
        other = structural_distortion(route, height, width)
        assert typical < other, route


def test_far_neighbors_outweigh_that_in_the_arithmetic_mean():
    for height, width in MAPS[:3]:  # squares
        hilbert = structural_distortion('hilbert', height, width, 'arithmetic')
        rows = structural_distortion('h', height, width, 'arithmetic')
        # Rows: width steps to the tokens above and below, one to those beside.
        pairs = (height - 1) * width * width + height * (width - 1)
        assert rows == pytest.approx(2 * pairs / (height * width))
        folded = back_and_forth(height, width)
        assert rows == structural_distortion(
            folded, height, width, 'arithmetic'
        )
        assert 1.15 * rows < hilbert < 1.25 * rows
    for route in ('h', back_and_forth(25, 42), 'w2', 'w7'):
        other = structural_distortion(route, 25, 42, 'arithmetic')
        assert structural_distortion('hilbert', 25, 42, 'arithmetic') < other
    columns = structural_distortion('v', 25, 42, 'arithmetic')
    assert columns < structural_distortion('hilbert', 25, 42, 'arithmetic')


@pytest.mark.filterwarnings('error')
def test_single_token_has_no_neighbors_to_be_far_from():
    assert structural_distortion('hilbert', 1, 1) == 0
    assert structural_distortion('w5', 1, 1, 'geometric') == 0


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('nowhere', 2, 2), 'unknown route'),
        (('h', 0, 2), 'needs a map, got 0 x 2'),
        (([], 0, 2), 'needs a map, got 0 x 2'),
        (([0, 1, 1, 2], 2, 2), 'each of the 2 x 2 tokens once'),
        (([0.0, 1.0], 1, 2), '1-D integer array'),
        (('h', 2, 2, 'median'), "'arithmetic' or 'geometric', got 'median'"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        structural_distortion(*arguments)
