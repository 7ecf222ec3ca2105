"""Rows and columns come in the documented order."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmssm.scans import CROSS, route_indices, routes

sizes = st.integers(1, 40)


def test_cross_is_row_column_and_their_reverses():
    want = [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]]
    want += [row[::-1] for row in want]
    got = routes(CROSS, 2, 3)
    assert got.tolist() == want and got.dtype == torch.int32
    assert torch.equal(routes('h v h_flip v_flip', 2, 3), got)


@given(height=sizes, width=sizes)
def test_transposed_map_swaps_h_and_v(height, width):
    transposed = np.arange(height * width).reshape(height, width).T.ravel()
    h_of_transposed = route_indices('h', width, height)
    assert np.array_equal(
        transposed[h_of_transposed], route_indices('v', height, width)
    )
