"""Slices of tokens give what the whole map gives, in less memory."""

import pytest
import torch
from torch import nn

from mmssm.layers import slices
from mmssm.layers.slices import by_slices

OWNER = nn.Sequential(nn.Identity())


@pytest.fixture
def seen(monkeypatch):
    """Shapes a function of two maps saw, with slices of about 7 tokens."""
    monkeypatch.setattr(slices, 'SLICE_BYTES', 7 * 16 * 8)
    shapes = []

    def function(x, y):
        shapes.append(tuple(map(int, x.shape)))
        return torch.cat([x, y], -1).float()

    return shapes, function


def maps():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    # The second is not contiguous.
    return x, torch.randn(2, 5, 3, 6, dtype=torch.float64).transpose(1, 2)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_slices_give_the_whole_in_new_memory(seen, mode):
    shapes, function = seen
    x, y = maps()
    want, before = function(x, y), x.clone()
    with mode():
        got = by_slices(function, x, y, width=16, owner=OWNER)
    assert torch.equal(got, want) and got.dtype == want.dtype
    assert torch.equal(x, before)
    assert shapes[1:] == [(6, 4)] * 5  # evenly, none over 7 tokens


def test_whole_maps_where_gradients_or_graphs_are_recorded(seen):
    shapes, function = seen
    x, y = maps()
    by_slices(function, x, y, width=16, owner=OWNER)
    with torch.no_grad():
        by_slices(function, x[:, :1, :3], y[:, :1, :3], width=16, owner=OWNER)
        by_slices(function, x[:0], y[:0], width=16, owner=OWNER)
        torch.jit.trace(
            lambda x, y: by_slices(function, x, y, width=16, owner=OWNER),
            (x, y),
            check_trace=False,
        )
    assert set(shapes) == {(2, 3, 5, 4), (2, 1, 3, 4), (0, 3, 5, 4)}


@pytest.mark.parametrize(
    'register', ['register_forward_hook', 'register_forward_pre_hook']
)
def test_whole_maps_where_a_module_has_a_hook(seen, register):
    shapes, function = seen
    x, y = maps()
    owner = nn.Sequential(nn.Identity())
    getattr(owner[0], register)(lambda *_: None)
    with torch.no_grad():
        by_slices(function, x, y, width=16, owner=owner)
    assert shapes == [(2, 3, 5, 4)]
