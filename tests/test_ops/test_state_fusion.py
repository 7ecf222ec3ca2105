"""The state fusion against its reference."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmssm.ops import state_fusion, state_fusion_reference
from mmssm.ops.state_fusion import merge_taps

ORDER = 'x weight alpha C D u'.split()
FUSIONS = [state_fusion, state_fusion_reference]


def make_inputs(
    batch=2,
    height=6,
    width=7,
    channels=5,
    readout=True,
    dtype=torch.float64,
    seed=0,
):
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    inputs = dict(
        x=rand(batch, height, width, channels),
        weight=rand(3, channels, 3, 3, dtype=parameter),
        alpha=rand(3, dtype=parameter),
    )
    if readout:
        inputs['C'] = rand(batch, height, width)
        inputs['D'] = rand(channels, dtype=parameter)
        inputs['u'] = rand(batch, height, width, channels)
    return inputs


def run(fusion, inputs):
    """The result, and the gradient of every input."""
    y = fusion(**inputs)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y, torch.autograd.grad(y, list(inputs.values()), weight)


def compare(inputs, forward, backward):
    """Errors at most these shares of the largest value."""
    got, grads = run(state_fusion, inputs)
    want, wanted = run(state_fusion_reference, inputs)
    assert got.dtype == want.dtype and got.shape == want.shape
    limits = [forward] + [backward] * len(grads)
    for a, b, limit in zip([got, *grads], [want, *wanted], limits):
        largest = float(b.detach().abs().max()) if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=limit * max(1, largest))


@settings(max_examples=60)
@given(
    batch=st.integers(0, 2),
    height=st.integers(1, 16),
    width=st.integers(1, 16),
    channels=st.sampled_from([1, 3, 8, 15, 16, 17, 40]),
    readout=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_shape(batch, height, width, channels, readout, dtype):
    inputs = make_inputs(batch, height, width, channels, readout, dtype)
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    compare(inputs, limit, limit)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('height, width', [(90, 30), (23, 400), (1, 64)])
def test_large_maps(height, width, readout):
    """More rows than one piece of the work, rows beyond the cache."""
    inputs = make_inputs(1, height, width, 130, readout, torch.float32)
    compare(inputs, 1e-5, 1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('readout', [False, True])
def test_16_bit_maps(dtype, readout):
    """Maps are read as they are; maths and sums are float32."""
    compare(make_inputs(channels=20, readout=readout, dtype=dtype), 1e-2, 2e-2)


def test_maps_of_different_dtypes():
    """Under autocast states may be float32 where u and C are not."""
    inputs = make_inputs(dtype=torch.float32)
    for name in ('C', 'u'):
        inputs[name] = inputs[name].detach().half().requires_grad_()
    y, grads = run(state_fusion, inputs)
    assert y.dtype == torch.float32
    assert [g.dtype for g in grads] == [t.dtype for t in inputs.values()]
    compare(inputs, 1e-5, 1e-2)


def test_the_formula_pixel_by_pixel():
    inputs = make_inputs(1, 4, 6, 2)
    x, weight, alpha, C, D, u = (t.detach() for t in inputs.values())
    y = torch.zeros_like(x)
    for row in range(4):
        for column in range(6):
            for i, d in enumerate((1, 3, 5)):
                for a in range(3):
                    for b in range(3):
                        near_row = min(max(row + d * (a - 1), 0), 3)
                        near_column = min(max(column + d * (b - 1), 0), 5)
                        near = x[0, near_row, near_column]
                        y[0, row, column] += (
                            alpha[i] * weight[i, :, a, b] * near
                        )
    y = C.unsqueeze(-1) * y + D * u
    for fusion in FUSIONS:
        torch.testing.assert_close(fusion(**inputs), y)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('height, width', [(3, 4), (1, 1), (7, 2)])
def test_gradcheck(height, width, readout):
    inputs = make_inputs(1, height, width, 2, readout)
    assert torch.autograd.gradcheck(state_fusion, list(inputs.values()))


@pytest.mark.parametrize('readout', [False, True])
def test_opcheck(readout):
    inputs = make_inputs(readout=readout)
    taps = merge_taps(inputs['weight'], inputs['alpha'], torch.float64)
    maps = [inputs.get(name) for name in ('C', 'D', 'u')]
    forward = (inputs['x'], taps.detach().requires_grad_(), *maps)
    ops = torch.ops.mmssm
    torch.library.opcheck(ops.state_fusion.default, forward)
    constant = [None if t is None else t.detach() for t in forward]
    torch.library.opcheck(
        ops._state_fusion_backward.default,
        (torch.randn_like(constant[0]), *constant),
    )


def test_compiles_and_exports():
    inputs = make_inputs(dtype=torch.float32)

    class Fusion(torch.nn.Module):
        def forward(self, *tensors):
            return state_fusion(*tensors)

    tensors = tuple(t.detach() for t in inputs.values())
    want = state_fusion(*tensors)
    exported = torch.export.export(Fusion(), tensors).module()
    torch.testing.assert_close(exported(*tensors), want)
    compiled = torch.compile(Fusion(), backend='aot_eager', fullgraph=True)
    y = compiled(*inputs.values())
    torch.testing.assert_close(y, want)
    grads = torch.autograd.grad(y.sum(), list(inputs.values()))
    wanted = torch.autograd.grad(
        state_fusion(**inputs).sum(), list(inputs.values())
    )
    torch.testing.assert_close(grads, wanted)


@pytest.mark.parametrize('fusion', FUSIONS)
def test_autocast_keeps_maths_in_float32(fusion):
    inputs = make_inputs(dtype=torch.float32)
    want = fusion(**inputs)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(fusion(**inputs), want, rtol=0, atol=0)


def test_views_are_not_read_wrongly():
    """A map may be a transposed one, C a part of a projection."""
    inputs = make_inputs()
    inputs['x'] = torch.randn(2, 5, 6, 7).double().permute(0, 2, 3, 1)
    inputs['u'] = torch.randn(2, 7, 6, 5).double().transpose(1, 2)
    inputs['C'] = torch.randn(2, 6, 7, 4).double()[..., 2]
    got = state_fusion(**inputs)
    torch.testing.assert_close(got, state_fusion_reference(**inputs))


def test_same_result_every_run_and_near_for_any_number_of_threads():
    inputs = make_inputs(2, 40, 23, 70, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            first, again = (run(state_fusion, inputs) for _ in range(2))
            assert all(
                torch.equal(a, b)
                for a, b in zip([first[0], *first[1]], [again[0], *again[1]])
            )
            results.append([first[0], *first[1]])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            largest = float(a.detach().abs().max())
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * largest)


def test_new_weights_count_at_once():
    """Nothing is kept from one call to the next."""
    inputs = make_inputs(readout=False)
    before = state_fusion(**inputs)
    with torch.no_grad():
        inputs['weight'].mul_(2)
    torch.testing.assert_close(state_fusion(**inputs), 2 * before)


def test_derivatives_that_are_missing_are_refused():
    inputs = make_inputs()
    y = state_fusion(**inputs)
    (g,) = torch.autograd.grad(y.sum(), inputs['u'], create_graph=True)
    with pytest.raises(RuntimeError, match='no second derivative'):
        g.sum().backward()
    x = inputs.pop('x').detach()
    with pytest.raises(RuntimeError, match='no forward-mode derivative'):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            state_fusion(dual, **inputs)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(x=torch.zeros(2, 6, 7)), r'x must be a map \(B, H, W, C\)'),
        (dict(x=torch.zeros(2, 0, 7, 5)), 'at least one token'),
        (dict(weight=torch.zeros(3, 5, 1, 3)), 'weight must have shape'),
        (dict(weight=torch.zeros(3, 5, 3, 3).int()), 'weight must be float'),
        (dict(alpha=torch.zeros(3, device='meta')), 'alpha must be .* on cpu'),
        (dict(alpha=torch.zeros(2)), r'alpha must have shape \(3\)'),
        (dict(C=torch.zeros(2, 6, 7, 1)), r'C must have shape \(B, H, W\)'),
        (dict(D=torch.zeros(4)), r'D must have shape \(C\)'),
        (dict(u=torch.zeros(2, 7, 6, 5)), 'u must have shape'),
        (dict(u=None), 'give all three or none'),
        (dict(x=torch.zeros(2, 6, 7, 5, dtype=torch.int32)), 'floating-point'),
    ],
)
@pytest.mark.parametrize('fusion', FUSIONS)
def test_wrong_input_says_what_was_expected(change, message, fusion):
    with pytest.raises(RuntimeError, match=message):
        fusion(**{**make_inputs(), **change})


@pytest.mark.parametrize('change', [dict(shape=(2, 6, 7, 4)), dict(taps=24)])
def test_native_op_checks_what_it_is_given(change):
    x = torch.zeros(2, 6, 7, 5)
    taps = torch.zeros(change.get('taps', 25), 5)
    grad = torch.zeros(change.get('shape', x.shape))
    with pytest.raises(RuntimeError, match='must have shape'):
        torch.ops.mmssm._state_fusion_backward(grad, x, taps, None, None, None)


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_every_instruction_set(capability):
    """The processor's best set serves above; here the lesser ones do."""
    some = 'gradcheck or large_maps or 16_bit'
    subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', __file__, '-k', some],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        check=True,
    )
