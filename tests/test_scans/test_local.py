"""Windows follow each other in the documented order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmssm.scans import route_indices

sizes = st.integers(1, 40)


@given(height=sizes, width=sizes, size=st.integers(1, 9))
def test_windows_follow_each_other_row_after_row(height, width, size):
    want = [
        row * width + column if row < height and column < width else -1
        for top in range(0, height, size)
        for left in range(0, width, size)
        for row in range(top, top + size)
        for column in range(left, left + size)
    ]
    got = route_indices(f'w{size}', height, width)
    assert got.tolist() == want
    flipped = route_indices(f'w{size}_flip', height, width)
    assert flipped.tolist() == want[::-1]


@pytest.mark.parametrize('name', ['w1', 'w24'])
def test_windows_of_one_token_or_the_whole_map_are_rows(name):
    assert np.array_equal(route_indices(name, 24, 24), np.arange(24 * 24))
