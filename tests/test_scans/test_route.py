"""Every registered route visits each token once; names, caches, errors."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmssm.scans import (
    BIDIRECTIONAL,
    CROSS,
    cached_routes,
    parse_routes,
    register_route,
    register_sized_route,
    route_indices,
    routes,
)
from mmssm.scans.route import _ROUTES, _SIZED_ROUTES

WINDOWS = [
    f'{n}{size}' for n in sorted(_SIZED_ROUTES) for size in range(1, 10)
]
ALL_ROUTES = [
    n + flip for n in (*sorted(_ROUTES), *WINDOWS) for flip in ('', '_flip')
]
sizes = st.integers(1, 40)


@pytest.mark.parametrize('name', ALL_ROUTES)
@given(height=sizes, width=sizes)
def test_every_token_once(name, height, width):
    visited = route_indices(name, height, width)
    tokens = np.sort(visited[visited >= 0])
    assert np.array_equal(tokens, np.arange(height * width))


@pytest.mark.parametrize('name', ALL_ROUTES)
def test_every_token_once_and_back_on_all_small_maps(name):
    for height in range(1, 25):
        for width in range(1, 25):
            route = route_indices(name, height, width)
            visits = route[route >= 0]
            assert len(visits) == height * width
            map_ = np.arange(100, 100 + height * width)
            restored = np.zeros_like(map_)
            restored[visits] = map_[visits]
            assert np.array_equal(restored, map_)
            # Steps to tokens and back: the inverse of the permutation.
            assert np.array_equal(map_[visits][np.argsort(visits)], map_)


@given(height=sizes, width=sizes)
def test_class_token_is_visited_in_the_middle(height, width):
    tokens = height * width
    middle = tokens // 2
    for name in ('h', 'v_flip', 'w3', 'w3_flip'):
        (route,) = routes(name, height, width, class_token=True).tolist()
        assert route[middle] == middle
        patches = [i - (i > middle) for i in route if i != middle]
        assert patches == route_indices(name, height, width).tolist()


def test_bidirectional_is_a_sequence_and_its_reverse():
    assert routes(BIDIRECTIONAL, 1, 4).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_callers_cannot_spoil_the_cache():
    routes('h', 3, 3).fill_(7)
    assert routes('h', 3, 3).tolist() == [list(range(9))]
    with pytest.raises(ValueError):
        route_indices('h', 3, 3)[0] = 7


def test_new_route_is_one_function(own_routes):
    @register_route('diagonal')
    def diagonal(height, width):
        rows, columns = np.indices((height, width))
        return np.argsort((rows + columns).ravel(), kind='stable')

    assert routes('diagonal', 2, 2).tolist() == [[0, 1, 2, 3]]
    assert routes('diagonal_flip', 2, 2).tolist() == [[3, 2, 1, 0]]
    with pytest.raises(ValueError, match='is taken'):
        register_route('diagonal')


def test_new_sized_route_is_one_function(own_routes):
    @register_sized_route('skip')
    def skip(height, width, size):
        tokens = np.arange(height * width)
        return np.concatenate([tokens[i::size] for i in range(size)])

    assert routes('skip2', 1, 5).tolist() == [[0, 2, 4, 1, 3]]
    assert routes('skip3_flip', 1, 5).tolist() == [[2, 4, 1, 3, 0]]
    for function in (register_route, register_sized_route):
        with pytest.raises(ValueError, match='is taken'):
            function('skip')
    with pytest.raises(ValueError, match='ends in a digit'):
        register_sized_route('skip2')


@pytest.mark.parametrize('name', ['w', 'w0', 'w-1', 'w2.5', 'w2_flip_flip'])
def test_window_without_a_size_is_unknown(name):
    with pytest.raises(ValueError, match='unknown route') as caught:
        parse_routes([name])
    known = re.search('known: (.*), each also', str(caught.value))[1]
    sized = [f'{name}<size>' for name in sorted(_SIZED_ROUTES)]
    assert known.split(', ') == [*sorted(_ROUTES), *sized]
    assert 'w<size>' in sized


def test_shorter_routes_end_in_zero_tokens(own_routes):
    register_route('leaving')(lambda height, width: np.array([0, -1, 1, 2]))
    want = [[0, 1, 2, -1], [0, -1, 1, 2]]
    assert routes('h leaving', 1, 3).tolist() == want


@pytest.mark.parametrize(
    'arguments, message',
    [(('nowhere', 2, 2), 'unknown route'), (('h', 0, 2), 'needs a map')],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        routes(*arguments)


@pytest.mark.parametrize('class_token', [False, True])
def test_opcheck(class_token):
    torch.library.opcheck(
        torch.ops.mmssm.routes.default,
        ('h w3', 3, 4, torch.device('cpu'), class_token),
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
def test_wrong_route_functions_are_refused(own_routes, indices):
    register_route('wrong')(lambda height, width: indices)
    with pytest.raises(ValueError, match='each of the 2 x 2 tokens once'):
        routes('wrong', 2, 2)


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
