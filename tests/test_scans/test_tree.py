"""Trees over a map: every parent comes earlier on the curve."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmssm.ops import tree_order
from mmssm.scans import route_indices
from mmssm.scans.tree import cached_tree, tree_parents

sizes = st.integers(1, 20)
CURVES = ('h', 'v_flip', 'hilbert')


def steps(curve, height, width):
    """The step at which each token is visited."""
    route = route_indices(curve, height, width)
    step = np.empty_like(route)
    step[route] = np.arange(len(route))
    return step


@pytest.mark.parametrize('curve', CURVES)
@given(height=sizes, width=sizes)
def test_without_pathways_the_route_is_the_tree(curve, height, width):
    route = route_indices(curve, height, width)
    parents = tree_parents(curve, height, width, 0.0)
    assert parents[route[0]] == -1
    assert np.array_equal(parents[route[1:]], route[:-1])


@pytest.mark.parametrize('curve', CURVES)
@given(height=sizes, width=sizes, pathways=st.floats(0, 1))
def test_parents_come_earlier(curve, height, width, pathways):
    parents = tree_parents(curve, height, width, pathways)
    step = steps(curve, height, width)
    root = parents < 0
    assert root.sum() == 1 and step[root] == 0
    assert (step[parents[~root]] < step[~root]).all()


@given(height=sizes, width=sizes, pathways=st.floats(0, 1))
def test_pathways_lead_to_the_earliest_neighbor(height, width, pathways):
    parents = tree_parents('hilbert', height, width, pathways)
    step = steps('hilbert', height, width)
    gaps, taken = [], []
    for token in range(height * width):
        row, column = divmod(token, width)
        around = [
            r * width + c
            for r, c in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            )
            if 0 <= r < height and 0 <= c < width
        ]
        first = min(around, key=lambda t: step[t], default=token)
        gap = step[token] - step[first]
        gaps.append(gap)
        if parents[token] >= 0 and step[parents[token]] != step[token] - 1:
            assert parents[token] == first
            taken.append(gap)
    share = round(pathways * height * width)
    # Those with the most steps between.
    farthest = sorted((g for g in gaps if g > 1), reverse=True)[:share]
    assert sorted(taken, reverse=True) == farthest


@pytest.mark.parametrize('height, width', [(14, 14), (25, 42)])
def test_pathways_between_rows_are_spread_over_the_map(height, width):
    """There all tokens come equally many steps after the one above."""
    parents = tree_parents('h', height, width, 0.1)
    plain = tree_parents('h', height, width, 0.0)
    taken = np.flatnonzero(parents != plain)
    assert len(taken) == round(0.1 * height * width)
    assert (parents[taken] == taken - width).all()
    candidates = (height - 1) * width
    distances = np.diff([width, *taken, height * width])
    assert distances.max() <= -(-candidates // len(taken))


# What trained weights depend on, at the sizes of a classifier's maps and one
# that is not square.
@pytest.mark.parametrize(
    'height, width, checksum',
    [
        (7, 7, 'f4e5598c'),
        (14, 14, '71ebeecd'),
        (28, 28, '01c7ea51'),
        (56, 56, '36ac0241'),
        (25, 42, '9b221ff0'),
    ],
)
def test_trees_stay_the_same(height, width, checksum):
    parents = tree_parents('hilbert', height, width, 0.1)
    assert f'{zlib.crc32(parents):08x}' == checksum


def test_share_holds_at_every_size():
    for side in (7, 14, 28, 56):
        parents = tree_parents('hilbert', side, side, 0.1)
        path = tree_parents('hilbert', side, side, 0.0)
        assert (parents != path).sum() == round(0.1 * side * side)


def test_cached_trees_are_shared_and_work_everywhere():
    device = torch.device('cpu')
    with torch.inference_mode():
        first = cached_tree('h', 5, 11, 0.25, device)
    assert cached_tree('h', 5, 11, 0.25, device) is first
    assert first.dtype == torch.int32 and not first.is_inference()
    parents = torch.tensor(tree_parents('h', 5, 11, 0.25))
    assert torch.equal(first, tree_order(parents))
    with FakeTensorMode():
        fake = cached_tree('h', 6, 11, 0.25, device)
        assert isinstance(fake, FakeTensor) and fake.shape == (2, 66)
    torch.library.opcheck(
        torch.ops.mmssm.map_tree.default, ('h', 3, 4, 0.5, device)
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('w2', 3, 3, 0.0), "without zero tokens, got 'w2' on a 3 x 3 map"),
        (('h', 3, 3, 1.5), 'a share of tokens, 0 to 1, got 1.5'),
        (('nowhere', 3, 3, 0.0), 'unknown route'),
    ],
)
def test_bad_trees_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tree_parents(*arguments)
