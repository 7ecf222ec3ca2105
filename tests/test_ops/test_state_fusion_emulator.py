"""The state fusion's CUDA kernels, their own source, on an emulator."""

import pytest
import torch

from mmssm.ops.state_fusion import merge_taps, state_fusion_reference

NAMES = 'x taps C D u'.split()
FIBER_ORDERS = dict(forward=0, reverse=1, random=2)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Whatever a kernel leaves unwritten is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_inputs(batch, height, width, channels, readout, dtype=torch.float64):
    """[x, weight, alpha, and with ``readout`` C, D, u]."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (batch, height, width, channels)
    inputs = [
        rand(*shape),
        rand(3, channels, 3, 3, dtype=wide),
        rand(3, dtype=wide),
    ]
    if readout:
        inputs += [rand(*shape[:3]), rand(channels, dtype=wide), rand(*shape)]
    return inputs


def draw_grad(x):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(x.shape, generator=generator).to(x.dtype)


def emulate(ops, inputs, grad):
    """[result, and the gradients of x, taps, C, D, u]."""
    x, weight, alpha, *readout = inputs
    taps = merge_taps(weight, alpha, weight.dtype)
    given = [x, taps, *(readout or [None] * 3)]
    return [
        ops.state_fusion(*given),
        *ops._state_fusion_backward(grad, *given),
    ]


def reference(inputs, grad):
    """The same, with gradients of weight and alpha in place of the taps'."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = state_fusion_reference(*leaves)
    grads = torch.autograd.grad(y, leaves, grad)
    return [y.detach(), *grads]


def assert_near(got, want, tolerance, name):
    assert got.dtype == want.dtype and got.shape == want.shape, name
    if want.numel():
        error = (got.double() - want.double()).abs().max()
        scale = want.double().abs().max().clamp_min(1)
        assert error <= tolerance * scale, name


def compare(ops, inputs, tolerance):
    grad = draw_grad(inputs[0])
    y, d_x, d_taps, *d_readout = emulate(ops, inputs, grad)
    want_y, want_x, want_weight, want_alpha, *want = reference(inputs, grad)
    leaves = [t.clone().requires_grad_() for t in inputs[1:3]]
    taps = merge_taps(*leaves, leaves[0].dtype)
    d_weight, d_alpha = torch.autograd.grad(taps, leaves, d_taps)
    assert_near(y, want_y, tolerance, 'y')
    assert_near(d_x, want_x, tolerance, 'x')
    assert_near(d_weight, want_weight, tolerance, 'weight')
    assert_near(d_alpha, want_alpha, tolerance, 'alpha')
    if not want:
        assert [t.numel() for t in d_readout] == [0, 0, 0]
        return
    for name, a, b in zip(NAMES[2:], d_readout, want, strict=True):
        assert_near(a, b, tolerance, name)


SHAPES = dict(
    one_token=(2, 1, 1, 5),
    one_row=(1, 1, 9, 3),
    one_column=(2, 11, 1, 1),
    below_the_reach=(3, 2, 3, 5),
    five_by_four=(2, 5, 4, 33),
    one_strip=(1, 7, 7, 64),
    two_strips=(1, 14, 13, 5),
    inner_strips=(1, 12, 30, 3),
    two_panels=(1, 3, 36, 2),
    no_batch=(0, 4, 5, 3),
)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_against_reference(ops, shape, readout):
    compare(ops, make_inputs(*SHAPES[shape], readout), 1e-11)


def test_no_channels(ops):
    inputs = make_inputs(1, 4, 5, 0, True)
    results = emulate(ops, inputs, draw_grad(inputs[0]))
    want = [(1, 4, 5, 0)] * 2 + [(25, 0), (1, 4, 5), (0,), (1, 4, 5, 0)]
    assert [tuple(t.shape) for t in results] == want
    assert not any(t.count_nonzero() for t in results)


@pytest.mark.parametrize('height', range(1, 13))
def test_every_small_map(ops, height):
    """Borders that meet: each width on its own side of each dilation."""
    for width in range(1, 13):
        compare(ops, make_inputs(1, height, width, 1, True), 1e-11)


@pytest.mark.parametrize('ranges', [1, 2, 3, 100])
def test_ranges_of_rows(ops, ranges):
    """Which end inside a map, or pass several maps; each warp many strips."""
    ops.set_fusion_ranges(ranges)
    compare(ops, make_inputs(3, 7, 31, 2, True), 1e-11)
    compare(ops, make_inputs(13, 3, 8, 2, False), 1e-11)


@pytest.mark.parametrize('readout', [False, True])
def test_float32(ops, readout):
    compare(ops, make_inputs(2, 9, 16, 5, readout, torch.float32), 1e-5)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tokens(ops, dtype, readout):
    """Read as they are: exact inputs, so only the results are rounded."""
    inputs = make_inputs(2, 9, 16, 5, readout, dtype)
    grad = draw_grad(inputs[0])
    got = emulate(ops, inputs, grad)
    wide = [t.float() for t in inputs]
    want = emulate(ops, wide, grad.float())
    for name, a, b in zip(['y', *NAMES], got, want, strict=True):
        assert torch.equal(a, b.to(a.dtype)), name
    assert got[0].dtype == dtype and got[2].dtype == torch.float32
    compare(ops, inputs, 1e-2)


def test_mixed_maps(ops):
    """16-bit x beside a float32 u: all are read as float32."""
    inputs = make_inputs(1, 5, 9, 3, True, torch.bfloat16)
    inputs[-1] = inputs[-1].float()
    compare(ops, inputs, 1e-2)


def test_strided_inputs(ops):
    inputs = make_inputs(2, 5, 9, 6, True)
    grad = draw_grad(inputs[0])
    *views, grad_view = [
        t.flatten().repeat_interleave(2)[::2].view(t.shape)
        if t.dim() == 1
        else t.transpose(0, -1).contiguous().transpose(0, -1)
        for t in (*inputs, grad)
    ]
    assert not any(t.is_contiguous() for t in (*views, grad_view))
    want = emulate(ops, inputs, grad)
    got = emulate(ops, views, grad_view)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize('ranges', [0, 2])
def test_any_order_of_threads_and_blocks(ops, ranges):
    """Bit for bit: no sum depends on who comes first."""
    ops.set_fusion_ranges(ranges)
    inputs = make_inputs(2, 6, 31, 34, True, torch.float32)
    grad = draw_grad(inputs[0])
    first = emulate(ops, inputs, grad)
    for order in ('reverse', 'random'):
        ops.set_order(FIBER_ORDERS[order], True)
        again = emulate(ops, inputs, grad)
        assert all(torch.equal(a, b) for a, b in zip(first, again)), order


@pytest.mark.parametrize('shape', [(0, 1, 2**29, 1), (2**31, 1, 1, 0)])
def test_too_large_maps_are_refused(ops, shape):
    """Empty ones here, to need no memory."""
    x = torch.zeros(shape)
    with pytest.raises(RuntimeError, match='too large for the GPU'):
        ops.state_fusion(x, torch.zeros(25, shape[-1]), None, None, None)
