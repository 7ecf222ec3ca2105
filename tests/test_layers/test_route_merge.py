"""The merges against plain loops, and the released code's order of tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmssm.layers.route_merge import (
    GatedSum,
    RouteMean,
    SearchedSum,
    build_merge,
    gather_by_route,
    released_inverse_index,
)

SHAPES = [(2, 4, 5, 16), (1, 1, 1, 8), (1, 3, 2, 24)]


def routes_results(shape):
    """(B, K, L, C), far from mean 0 so that norms matter."""
    torch.manual_seed(0)
    return 0.5 + 2 * torch.randn(shape, dtype=torch.float64)


def shaken(merge):
    """The merge in float64, its weights far from their initial ones."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in merge.parameters():
            parameter.add_(torch.randn_like(parameter))
    return merge.double()


def normed(values):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + 1e-5) for v in values]


def affine(layer, values):
    """A linear map's numbers, one after the other."""
    return [
        bias + sum(w * v for w, v in zip(row, values))
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist())
    ]


def gelu(value):
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def gates(merge, tokens):
    """The gates of one route's channels, from its L tokens of C numbers."""
    scales, shifts = merge.norm.weight.tolist(), merge.norm.bias.tolist()
    tokens = [
        [s * v + b for s, v, b in zip(scales, normed(token), shifts)]
        for token in tokens
    ]
    mean = [sum(channel) / len(tokens) for channel in zip(*tokens)]
    hidden = [gelu(v) for v in affine(merge.reduce, mean)]
    return [1 / (1 + math.exp(-v)) for v in affine(merge.select, hidden)]


def gated(merge, tokens):
    gate = gates(merge, tokens)
    return [[v * g for v, g in zip(token, gate)] for token in tokens]


def summed(routes, shares):
    """The routes' tokens, each route times its share, added up."""
    return [
        [sum(s * v for s, v in zip(shares, values)) for values in zip(*tokens)]
        for tokens in zip(*routes)
    ]


def assert_equals_loops(merge, y, loops, device):
    want = torch.tensor(
        [loops(routes) for routes in y.tolist()], dtype=torch.float64
    )
    with torch.no_grad():
        got = merge.to(device)(y.to(device)).cpu()
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('shape', SHAPES)
def test_mean(device, shape):
    def loops(routes):
        return summed(routes, [1 / len(routes)] * len(routes))

    assert_equals_loops(RouteMean(), routes_results(shape), loops, device)


@pytest.mark.parametrize('shape', SHAPES)
def test_gated_sum(device, shape):
    merge = shaken(GatedSum(shape[-1]))

    def loops(routes):
        routes = [gated(merge, tokens) for tokens in routes]
        return summed(routes, [1] * len(routes))

    assert_equals_loops(merge, routes_results(shape), loops, device)


@pytest.mark.parametrize('shape', SHAPES)
def test_searched_sum(device, shape):
    merge = shaken(SearchedSum(shape[-1], shape[1]))
    exponents = [math.exp(weight) for weight in merge.weights.tolist()]
    shares = [e / sum(exponents) for e in exponents]
    assert merge.probabilities().tolist() == pytest.approx(shares)

    def loops(routes):
        routes = [
            [normed(token) for token in gated(merge, tokens)]
            for tokens in routes
        ]
        return summed(routes, shares)

    assert_equals_loops(merge, routes_results(shape), loops, device)


def test_gate_has_two_maps_of_an_eighth():
    merge = GatedSum(48)
    assert merge.reduce.weight.shape == (6, 48)
    assert merge.select.weight.shape == (48, 6)
    assert GatedSum(48, reduction=4).reduce.weight.shape == (12, 48)


def test_search_starts_with_nearly_equal_chances():
    torch.manual_seed(0)
    weights = torch.stack([SearchedSum(8, 8).weights for _ in range(200)])
    assert weights.std().item() == pytest.approx(1e-3, rel=0.1)
    assert abs(weights.mean().item()) < 1e-4


@pytest.mark.parametrize('kind', ['mean', 'gated', 'searched'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_results_are_merged_by_float32_weights(device, kind, dtype):
    """As under autocast. Probabilities are too fine for 16 bits."""
    merge = build_merge(kind, 16, 4)
    y = routes_results((2, 4, 5, 16)).to(dtype)
    with torch.no_grad():
        want = merge(y.float())
        got = merge.to(device)(y.to(device)).cpu()
    assert got.dtype == (torch.float32 if kind == 'searched' else dtype)
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


def test_merges_have_names():
    assert type(build_merge('mean', 16, 4)) is RouteMean
    assert type(build_merge('gated', 16, 4)) is GatedSum
    searched = build_merge('searched', 16, 3)
    assert type(searched) is SearchedSum and searched.weights.shape == (3,)


def test_unknown_merge_is_named():
    message = "must be 'mean', 'gated' or 'searched', got 'sum'"
    with pytest.raises(ValueError, match=message):
        build_merge('sum', 16, 4)


def put_back_as_released(height, width):
    """Whose result lands where, as LocalMamba's code undoes a column scan.

    The results come column after column; it takes them for the rows of a
    height x width grid and transposes that.
    """
    results = [i * width + j for j in range(width) for i in range(height)]
    grid = [results[i * width : (i + 1) * width] for i in range(height)]
    return [grid[i][j] for j in range(width) for i in range(height)]


def test_released_inverse_index_is_that_of_the_released_code():
    others = ('h', 'w2', 'h_flip', 'w7_flip')
    names = ('v', *others, 'v_flip')
    for height in range(1, 15):
        for width in range(1, 15):
            order = released_inverse_index(
                names, height, width, torch.device('cpu')
            )
            tokens = list(range(height * width))
            released = put_back_as_released(height, width)
            want = [released, *[tokens] * len(others), released]
            assert order.tolist() == want, (height, width)
            right = height == width or 1 in (height, width)
            assert (released == tokens) is right, (height, width)


@given(st.data())
def test_gather_by_route(device, data):
    draw = data.draw
    routes, steps, tokens = (draw(st.integers(1, 6)) for _ in range(3))
    order = [
        [draw(st.integers(0, steps - 1)) for _ in range(tokens)]
        for _ in range(routes)
    ]
    y = torch.randn(2, routes, steps, 3)
    got = gather_by_route(y.to(device), torch.tensor(order).to(device)).cpu()
    assert got.shape == (2, routes, tokens, 3)
    for k, row in enumerate(order):
        for token, step in enumerate(row):
            assert torch.equal(got[:, k, token], y[:, k, step])
