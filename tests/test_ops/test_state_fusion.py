"""The state fusion against its reference."""

import os
import subprocess
import sys

import pytest
import torch
from fusion_inputs import make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import move

from mmssm.ops import state_fusion, state_fusion_reference
from mmssm.ops.state_fusion import merge_taps

ORDER = 'x weight alpha C D u'.split()
FUSIONS = [state_fusion, state_fusion_reference]


def run(fusion, inputs):
    """The result, and the gradient of every input."""
    y = fusion(**inputs)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    weight = weight.to(y.device)
    return y, torch.autograd.grad(y, list(inputs.values()), weight)


def compare(inputs, forward, backward, device):
    """Errors at most these shares of the largest value."""
    got, grads = run(state_fusion, move(inputs, device))
    want, wanted = run(state_fusion_reference, inputs)
    assert got.dtype == want.dtype and got.shape == want.shape
    limits = [forward] + [backward] * len(grads)
    for a, b, limit in zip([got, *grads], [want, *wanted], limits):
        largest = float(b.detach().abs().max()) if b.numel() else 0
        assert a.device.type == device.type
        torch.testing.assert_close(
            a.cpu(), b, rtol=0, atol=limit * max(1, largest)
        )


@settings(max_examples=60)
@given(
    batch=st.integers(0, 2),
    height=st.integers(1, 16),
    width=st.integers(1, 16),
    channels=st.sampled_from([1, 3, 8, 15, 16, 17, 40]),
    readout=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_shape(device, batch, height, width, channels, readout, dtype):
    inputs = make_inputs(batch, height, width, channels, readout, dtype)
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    compare(inputs, limit, limit, device)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('height, width', [(90, 30), (23, 400), (1, 64)])
def test_large_maps(device, height, width, readout):
    """More rows than one piece of the work, rows beyond the cache."""
    inputs = make_inputs(1, height, width, 130, readout, torch.float32)
    compare(inputs, 1e-5, 1e-4, device)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('readout', [False, True])
def test_16_bit_maps(device, dtype, readout):
    """Maps are read as they are; math and sums are float32."""
    inputs = make_inputs(channels=20, readout=readout, dtype=dtype)
    compare(inputs, 1e-2, 2e-2, device)


def test_maps_of_different_dtypes(device):
    """Under autocast states may be float32 where u and C are not."""
    inputs = make_inputs(dtype=torch.float32)
    for name in ('C', 'u'):
        inputs[name] = inputs[name].detach().half().requires_grad_()
    y, grads = run(state_fusion, move(inputs, device))
    assert y.dtype == torch.float32
    assert [g.dtype for g in grads] == [t.dtype for t in inputs.values()]
    compare(inputs, 1e-5, 1e-2, device)


@pytest.mark.parametrize('fusion', FUSIONS)
def test_the_formula_pixel_by_pixel(device, fusion):
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
    torch.testing.assert_close(fusion(**move(inputs, device)).cpu(), y)


@pytest.mark.parametrize('readout', [False, True])
@pytest.mark.parametrize('height, width', [(3, 4), (1, 1), (7, 2)])
def test_gradcheck(device, height, width, readout):
    inputs = move(make_inputs(1, height, width, 2, readout), device)
    assert torch.autograd.gradcheck(state_fusion, list(inputs.values()))


@pytest.mark.parametrize('readout', [False, True])
def test_opcheck(device, readout):
    inputs = move(make_inputs(readout=readout), device)
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


def test_compiles_and_exports(device):
    inputs = move(make_inputs(dtype=torch.float32), device)

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
def test_autocast_keeps_maths_in_float32(device, fusion):
    inputs = move(make_inputs(dtype=torch.float32), device)
    want = fusion(**inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(fusion(**inputs), want, rtol=0, atol=0)


def test_views_are_not_read_wrongly(device):
    """A map may be a transposed one, C a part of a projection."""
    inputs = make_inputs()
    inputs['x'] = torch.randn(2, 5, 6, 7).double()
    inputs['u'] = torch.randn(2, 7, 6, 5).double()
    inputs['C'] = torch.randn(2, 6, 7, 4).double()

    def fuse(fusion, inputs):
        views = dict(
            x=inputs['x'].permute(0, 2, 3, 1),
            u=inputs['u'].transpose(1, 2),
            C=inputs['C'][..., 2],
        )
        return fusion(**{**inputs, **views})

    got = fuse(state_fusion, move(inputs, device)).cpu()
    torch.testing.assert_close(got, fuse(state_fusion_reference, inputs))


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


def test_new_weights_count_at_once(device):
    """Nothing is kept from one call to the next."""
    inputs = move(make_inputs(readout=False), device)
    before = state_fusion(**inputs)
    with torch.no_grad():
        inputs['weight'].mul_(2)
    torch.testing.assert_close(state_fusion(**inputs), 2 * before)


def test_derivatives_that_are_missing_are_refused(device):
    inputs = move(make_inputs(), device)
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
        (dict(alpha=torch.zeros(2)), r'alpha must have shape \(3\)'),
        (dict(C=torch.zeros(2, 6, 7, 1)), r'C must have shape \(B, H, W\)'),
        (dict(D=torch.zeros(4)), r'D must have shape \(C\)'),
        (dict(u=torch.zeros(2, 7, 6, 5)), 'u must have shape'),
        (dict(u=None), 'give all three or none'),
        (dict(x=torch.zeros(2, 6, 7, 5).int()), 'x must be float64, float32'),
    ],
)
@pytest.mark.parametrize('fusion', FUSIONS)
def test_wrong_input_says_what_was_expected(device, change, message, fusion):
    inputs = move({**make_inputs(), **change}, device)
    with pytest.raises(RuntimeError, match=message):
        fusion(**inputs)


@pytest.mark.parametrize('fusion', FUSIONS)
def test_the_device_that_was_expected_is_named(device, fusion):
    inputs = move(make_inputs(), device)
    inputs['alpha'] = torch.zeros(3, device='meta')
    with pytest.raises(RuntimeError, match=f'alpha must be .* on {device}'):
        fusion(**inputs)


@pytest.mark.parametrize('change', [dict(shape=(2, 6, 7, 4)), dict(taps=24)])
def test_native_op_checks_what_it_is_given(device, change):
    x = torch.zeros(2, 6, 7, 5, device=device)
    taps = torch.zeros(change.get('taps', 25), 5, device=device)
    grad = torch.zeros(change.get('shape', x.shape), device=device)
    with pytest.raises(RuntimeError, match='must have shape'):
        torch.ops.mmssm._state_fusion_backward(grad, x, taps, None, None, None)


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_every_instruction_set(capability):
    """The processor's best set serves above; here the lesser ones do."""
    some = 'gradcheck or large_maps or 16_bit'
    subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', __file__, '-k', some]
        + ['-m', 'not cuda'],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        check=True,
    )
