"""The tree scan's CUDA kernels, their own source, on an emulator."""

import pytest
import torch
from tree_inputs import binary, leaves, make_inputs, path, random_tree, star

from mmssm.ops import tree_order, tree_scan_reference

NAMES = 'x dt A B dt_weight dt_bias'.split()
FIBER_ORDERS = dict(forward=0, reverse=1, random=2)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Whatever a kernel leaves unwritten is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw_grad(inputs, dtype):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(inputs['x'].shape, generator=generator).to(dtype)


def emulate(ops, inputs, softplus=True, out_dtype=None):
    """[result, and the gradients of NAMES]."""
    given = [inputs.get(name) for name in NAMES]
    given = [None if t is None else t.detach() for t in given]
    given += [tree_order(inputs['parents']), softplus]
    y = ops.tree_scan(*given, out_dtype)
    grad = draw_grad(inputs, y.dtype)
    return [y, *ops._tree_scan_backward(grad, *given)]


def reference(inputs, softplus=True):
    y = tree_scan_reference(**inputs, delta_softplus=softplus)
    grads = torch.autograd.grad(
        y, leaves(inputs), draw_grad(inputs, y.dtype), materialize_grads=True
    )
    found = dict(zip(inputs, grads))
    return [y.detach(), *(found.get(name) for name in NAMES)]


def compare(ops, inputs, tolerance, softplus=True):
    got = emulate(ops, inputs, softplus)
    want = reference(inputs, softplus)
    for name, a, b in zip(['y', *NAMES], got, want, strict=True):
        if b is None:
            assert a.numel() == 0
            continue
        assert a.dtype == b.dtype and a.shape == b.shape, name
        if b.numel():
            error = (a.double() - b.double()).abs().max()
            scale = b.double().abs().max().clamp_min(1)
            assert error <= tolerance * scale, name


TREES = dict(
    one_token=path(1),
    two_tokens=path(2),
    path=path(70),
    star=star(40),
    binary=binary(100),
    random=random_tree(150),
    chains=random_tree(150, 3),
)


@pytest.mark.parametrize('rank', [0, 3])
@pytest.mark.parametrize('tree', TREES)
def test_against_reference(ops, tree, rank):
    compare(ops, make_inputs(TREES[tree], 2, 5, rank), 1e-11)


@pytest.mark.parametrize('tokens', [15, 16, 17, 31, 32, 33, 64, 65])
def test_ends_of_tiles(ops, tokens):
    for reach in (1, 2, 20):
        inputs = make_inputs(random_tree(tokens, reach), 1, 2, 2)
        compare(ops, inputs, 1e-11)


@pytest.mark.parametrize('channels', [1, 31, 32, 33, 130])
def test_blocks_of_channels(ops, channels):
    compare(ops, make_inputs(random_tree(40, 4), 2, channels), 1e-11)


@pytest.mark.parametrize('segments, shares', [(1, 1), (2, 2), (100, 3)])
def test_plans(ops, segments, shares):
    """Steps for themselves in segments, items of the batch in turn."""
    ops.set_plan(32, segments, shares)
    compare(ops, make_inputs(random_tree(200, 4), 3, 40), 1e-11)


@pytest.mark.parametrize('bias, softplus', [(False, True), (False, False)])
def test_without_bias_and_softplus(ops, bias, softplus):
    inputs = make_inputs(random_tree(30), rank=0, bias=bias)
    inputs['dt'] = inputs['dt'].detach().abs().requires_grad_()
    compare(ops, inputs, 1e-11, softplus)


@pytest.mark.parametrize('batch, channels', [(0, 3), (2, 0)])
def test_nothing_to_do(ops, batch, channels):
    inputs = make_inputs(path(5), batch, channels)
    results = emulate(ops, inputs)
    shapes = [inputs['x'].shape, *(t.shape for t in leaves(inputs))]
    assert [t.shape for t in results] == shapes
    assert not any(t.count_nonzero() for t in results)


def test_float32(ops):
    inputs = make_inputs(random_tree(150, 4), 2, 40, dtype=torch.float32)
    compare(ops, inputs, 1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tokens(ops, dtype):
    """Read as they are: exact inputs, so only the results are rounded."""
    inputs = make_inputs(random_tree(40, 4), 2, 9, dtype=dtype)
    compare(ops, inputs, 2e-2)
    y = emulate(ops, inputs, out_dtype=torch.float32)[0]
    wide = {
        name: t.detach().float() if t.is_floating_point() else t
        for name, t in inputs.items()
    }
    assert y.dtype == torch.float32
    assert torch.equal(y, emulate(ops, wide)[0])


def test_strided_inputs(ops):
    inputs = make_inputs(random_tree(20), 2, 6)
    views = {
        name: t.flatten().repeat_interleave(2)[::2].view(t.shape)
        if t.dim() == 1
        else t.transpose(0, -1).contiguous().transpose(0, -1)
        for name, t in inputs.items()
    }
    want, got = emulate(ops, inputs), emulate(ops, views)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_any_order_of_threads_and_blocks(ops):
    """Bit for bit: no sum depends on who comes first."""
    ops.set_plan(64, 2, 2)
    inputs = make_inputs(random_tree(140, 4), 2, 70, dtype=torch.float32)
    first = emulate(ops, inputs)
    for order in ('reverse', 'random'):
        ops.set_order(FIBER_ORDERS[order], True)
        again = emulate(ops, inputs)
        assert all(torch.equal(a, b) for a, b in zip(first, again)), order
