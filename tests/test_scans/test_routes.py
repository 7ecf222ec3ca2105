"""Routes visit every token once and come in the documented order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmssm.scans import (
    CROSS,
    cached_routes,
    parse_routes,
    register_route,
    route_indices,
    routes,
)
from mmssm.scans.route import _ROUTES

ALL_ROUTES = [n + flip for n in sorted(_ROUTES) for flip in ('', '_flip')]
sizes = st.integers(1, 40)


@pytest.mark.parametrize('name', ALL_ROUTES)
@given(height=sizes, width=sizes)
def test_every_token_once(name, height, width):
    visited = route_indices(name, height, width)
    tokens = np.sort(visited[visited >= 0])
    assert np.array_equal(tokens, np.arange(height * width))


@given(height=sizes, width=sizes)
def test_inverse_restores_the_map(height, width):
    map_ = torch.randn(height * width)
    for route in routes(CROSS, height, width).long():
        restored = torch.empty_like(map_)
        restored[route] = map_[route]
        assert torch.equal(restored, map_)
        assert torch.equal(map_[route][torch.argsort(route)], map_)


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


def test_callers_cannot_spoil_the_cache():
    routes('h', 3, 3).fill_(7)
    assert routes('h', 3, 3).tolist() == [list(range(9))]
    with pytest.raises(ValueError):
        route_indices('h', 3, 3)[0] = 7


def test_new_route_is_one_function(monkeypatch):
    monkeypatch.setattr('mmssm.scans.route._ROUTES', dict(_ROUTES))

    @register_route('diagonal')
    def diagonal(height, width):
        rows, columns = np.indices((height, width))
        return np.argsort((rows + columns).ravel(), kind='stable')

    assert routes('diagonal', 2, 2).tolist() == [[0, 1, 2, 3]]
    assert routes('diagonal_flip', 2, 2).tolist() == [[3, 2, 1, 0]]
    with pytest.raises(ValueError, match='is taken'):
        register_route('diagonal')


def test_shorter_routes_end_in_zero_tokens(monkeypatch):
    monkeypatch.setattr('mmssm.scans.route._ROUTES', dict(_ROUTES))
    register_route('leaving')(lambda height, width: np.array([0, -1, 1, 2]))
    want = [[0, 1, 2, -1], [0, -1, 1, 2]]
    assert routes('h leaving', 1, 3).tolist() == want


@pytest.mark.parametrize(
    'arguments, message',
    [(('spiral', 2, 2), 'unknown route'), (('h', 0, 2), 'needs a map')],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        routes(*arguments)


def test_opcheck():
    torch.library.opcheck(
        torch.ops.mmssm.routes.default, ('h v', 3, 4, torch.device('cpu'), False)
    )


@pytest.mark.parametrize(
    'indices',
    [
        np.zeros(4, int),
        np.arange(4) + 0.5,
        np.arange(3),
        np.arange(4) - 2,
        np.arange(4).reshape(2, 2),
        [0, 1, 2, 2],
    ],
)
def test_wrong_route_functions_are_refused(monkeypatch, indices):
    monkeypatch.setattr('mmssm.scans.route._ROUTES', dict(_ROUTES))
    name = f'wrong{abs(hash(str(indices)))}'
    register_route(name)(lambda height, width: indices)
    with pytest.raises(ValueError, match='each of the 2 x 2 tokens once'):
        routes(name, 2, 2)


def test_names_are_single_words():
    with pytest.raises(ValueError, match='not one word'):
        register_route('two words')
    with pytest.raises(ValueError, match='no routes given'):
        routes((), 2, 2)
    assert parse_routes('h v_flip') == parse_routes(['h', 'v_flip'])


def test_cached_routes_are_shared_and_work_everywhere():
    device = torch.device('cpu')
    with torch.inference_mode():
        first = cached_routes(CROSS, 5, 11, device)
    assert cached_routes(CROSS, 5, 11, device) is first
    assert not first.is_inference()  # or autograd could not keep it
    assert torch.equal(first, routes(CROSS, 5, 11))
    with FakeTensorMode():
        assert isinstance(cached_routes(CROSS, 6, 11, device), FakeTensor)
    assert type(cached_routes(CROSS, 6, 11, device)) is torch.Tensor
