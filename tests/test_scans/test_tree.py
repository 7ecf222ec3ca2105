"""Trees over a map: every token hangs on an earlier one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmssm.scans import route_indices
from mmssm.scans.tree import cached_parents, tree_parents

sizes = st.integers(1, 20)
ORDERS = ('h', 'v_flip', 'hilbert')


def steps(order, height, width):
    """When each token is met."""
    route = route_indices(order, height, width)
    step = np.empty_like(route)
    step[route] = np.arange(len(route))
    return step


@pytest.mark.parametrize('order', ORDERS)
@given(height=sizes, width=sizes)
def test_without_pathways_the_route_is_the_tree(order, height, width):
    route = route_indices(order, height, width)
    parents = tree_parents(order, height, width, 0.0)
    assert parents[route[0]] == -1
    assert np.array_equal(parents[route[1:]], route[:-1])


@pytest.mark.parametrize('order', ORDERS)
@given(height=sizes, width=sizes, pathways=st.floats(0, 1))
def test_parents_come_earlier(order, height, width, pathways):
    parents = tree_parents(order, height, width, pathways)
    step = steps(order, height, width)
    root = parents < 0
    assert root.sum() == 1 and step[root] == 0
    assert (step[parents[~root]] < step[~root]).all()


@given(height=sizes, width=sizes, pathways=st.floats(0, 1))
def test_pathways_lead_to_the_earliest_neighbour(height, width, pathways):
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
    # Those that lead farthest back.
    farthest = sorted((g for g in gaps if g > 1), reverse=True)[:share]
    assert sorted(taken, reverse=True) == farthest


def test_share_holds_at_every_size():
    for side in (7, 14, 28, 56):
        parents = tree_parents('hilbert', side, side, 0.1)
        path = tree_parents('hilbert', side, side, 0.0)
        assert (parents != path).sum() == round(0.1 * side * side)


def test_cached_parents_are_shared_and_work_everywhere():
    device = torch.device('cpu')
    with torch.inference_mode():
        first = cached_parents('h', 5, 11, 0.25, device)
    assert cached_parents('h', 5, 11, 0.25, device) is first
    assert first.dtype == torch.int32 and not first.is_inference()
    assert first.tolist() == tree_parents('h', 5, 11, 0.25).tolist()
    with FakeTensorMode():
        fake = cached_parents('h', 6, 11, 0.25, device)
        assert isinstance(fake, FakeTensor) and fake.shape == (66,)
    torch.library.opcheck(
        torch.ops.mmssm.tree_parents.default, ('h', 3, 4, 0.5, device)
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('w2', 3, 3, 0.0), "without zero tokens, got 'w2' on a 3 x 3 map"),
        (('h', 3, 3, 1.5), 'a share of tokens, 0 to 1, got 1.5'),
        (('spiral', 3, 3, 0.0), 'unknown route'),
    ],
)
def test_bad_trees_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tree_parents(*arguments)
