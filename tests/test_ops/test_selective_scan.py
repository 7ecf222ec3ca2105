"""The 1-D scan against a loop written from its definition."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import move

from mmssm.ops import selective_scan, selective_scan_reference

SCANS = [selective_scan, selective_scan_reference]


def make_inputs(
    batch=2, dim=6, length=11, states=3, groups=2, dtype=torch.float64
):
    torch.manual_seed(0)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    weights = (groups, states) if groups else (states,)
    return dict(
        u=rand(batch, dim, length),
        delta=rand(batch, dim, length),
        A=(-torch.rand(dim, states, dtype=parameter)).requires_grad_(),
        B=rand(batch, *weights, length),
        C=rand(batch, *weights, length),
        D=rand(dim, dtype=parameter),
        delta_bias=rand(dim, dtype=parameter),
    )


def run(scan, inputs, **options):
    """The result, and the gradient of every input."""
    y = scan(**inputs, delta_softplus=True, **options)
    weight = torch.linspace(-1, 1, y.numel()).to(y).view(y.shape)
    given = [t for t in inputs.values() if t is not None]
    return y, *torch.autograd.grad(y, given, weight)


def compare(inputs, limit, device):
    """Errors at most this share of the largest value."""
    got = run(selective_scan, move(inputs, device))
    for a, b in zip(got, run(selective_scan_reference, inputs)):
        assert a.dtype == b.dtype and a.device.type == device.type
        largest = float(b.detach().abs().max()) if b.numel() else 0
        torch.testing.assert_close(
            a.cpu(), b, rtol=0, atol=limit * max(1, largest)
        )


def by_definition(u, delta, A, B, C, D, delta_bias):
    """h = exp(delta A) h + delta B u; y = C h + D u, one number at a time."""
    delta = F.softplus(delta + delta_bias[:, None])
    y = torch.zeros_like(u)
    groups = B.shape[1]
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            g = d // (u.shape[1] // groups)
            h = torch.zeros_like(A[d])
            for t in range(u.shape[2]):
                step = delta[b, d, t]
                h = (
                    torch.exp(step * A[d]) * h
                    + step * B[b, g, :, t] * u[b, d, t]
                )
                y[b, d, t] = C[b, g, :, t] @ h + D[d] * u[b, d, t]
    return y


@pytest.mark.parametrize('scan', SCANS)
@pytest.mark.parametrize('groups', [1, 2, 3])
def test_equals_definition(device, scan, groups):
    inputs = make_inputs(groups=groups)
    with torch.no_grad():
        want = by_definition(**inputs)
        got = scan(**move(inputs, device), delta_softplus=True)
    torch.testing.assert_close(got.cpu(), want)


def test_ungrouped_weights_and_no_options(device):
    inputs = make_inputs(groups=0)
    inputs.update(D=None, delta_bias=None)
    inputs['delta'] = inputs['delta'].detach().abs()
    got = selective_scan(**move(inputs, device))
    want = selective_scan_reference(**inputs)
    torch.testing.assert_close(got.cpu(), want)


@settings(max_examples=30)
@given(
    batch=st.integers(0, 3),
    channels_per_group=st.sampled_from([1, 3, 31, 32, 33]),
    length=st.sampled_from([1, 2, 33, 64, 65]),
    states=st.integers(1, 16),
    groups=st.integers(0, 3),
    parameters=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_shape(
    device,
    batch,
    channels_per_group,
    length,
    states,
    groups,
    parameters,
    dtype,
):
    channels = channels_per_group * max(1, groups)
    inputs = make_inputs(batch, channels, length, states, groups, dtype)
    if not parameters:
        inputs.update(D=None, delta_bias=None)
    limit = 1e-11 if dtype == torch.float64 else 3e-5
    compare(inputs, limit, device)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_inputs(device, dtype):
    """Read as they are; math and state are float32."""
    inputs = make_inputs(dim=40, length=50, dtype=dtype)
    compare(inputs, 2e-2, device)


def test_autocast_keeps_maths_in_float32(device):
    inputs = make_inputs(dtype=torch.float32)
    moved = move(inputs, device)
    with torch.no_grad():
        want = selective_scan_reference(**inputs)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            got = selective_scan(**moved)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-5)


class Scan(torch.nn.Module):
    def forward(self, *tensors):
        return selective_scan(*tensors, delta_softplus=True)


def test_compiles_and_exports(device):
    inputs = make_inputs(dtype=torch.float32)
    want, *wanted = run(selective_scan_reference, inputs)
    inputs = move(inputs, device)
    torch.compiler.reset()  # or those of other tests count, too
    compiled = torch.compile(Scan(), backend='aot_eager', fullgraph=True)
    y, *grads = run(lambda delta_softplus, **t: compiled(*t.values()), inputs)
    constant = tuple(t.detach() for t in inputs.values())
    exported = torch.export.export(Scan(), constant).module()(*constant)
    for got in (y, exported):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-5)
    for a, b in zip(grads, wanted):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)


def test_gradcheck(device):
    inputs = move(make_inputs(length=5), device)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *v: selective_scan(**dict(zip(names, v)), delta_softplus=True),
        list(inputs.values()),
    )


@pytest.mark.parametrize('scan', SCANS)
def test_float16_results_are_float16(device, scan):
    """As mamba-ssm's are."""
    assert scan(**move(make_inputs(dtype=torch.float16), device)).dtype == (
        torch.float16
    )


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(u=torch.zeros(2, 6)), r'u must be \(B, D, L\)'),
        (dict(u=torch.zeros(2, 6, 11).int()), 'u must be float64, float32'),
        (
            dict(delta=torch.zeros(2, 1, 11)),
            r"delta must have shape \(B, D, L\), u's",
        ),
        (dict(A=torch.zeros(6)), r'A must be \(D, N\)'),
        (dict(A=torch.zeros(5, 3)), r'A must have shape \(D, N\)'),
        (
            dict(A=torch.zeros(6, 0)),
            r'A must be \(D, N\), with at least one state',
        ),
        (dict(B=torch.zeros(2, 11)), r'B must be \(B, N, L\) or'),
        (dict(B=torch.zeros(2, 2, 3, 9)), r'B must have shape \(B, \[G,\] N'),
        (dict(C=torch.zeros(2, 3, 11)), r'C must have shape \(B, \[G,\] N'),
        (
            dict(B=torch.zeros(2, 4, 3, 11), C=torch.zeros(2, 4, 3, 11)),
            '6 channels do not divide into 4 groups',
        ),
        (dict(D=torch.zeros(5)), r'D must have shape \(D\)'),
        (dict(delta_bias=torch.zeros(1)), r'delta_bias must have shape \(D\)'),
        (dict(A=torch.zeros(6, 3, device='meta')), 'A is on meta but u is on'),
    ],
)
@pytest.mark.parametrize('scan', SCANS)
def test_wrong_input_is_named(device, change, message, scan):
    inputs = {**make_inputs(), **change}
    moved = {
        k: v if v.is_meta else move({k: v}, device)[k]
        for k, v in inputs.items()
    }
    with pytest.raises(RuntimeError, match=f'^selective_scan: {message}'):
        scan(**moved)
