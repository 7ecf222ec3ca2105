"""The 1-D scan against a loop written from its definition."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import move

from mmssm.ops import selective_scan, selective_scan_reference

SCANS = [selective_scan, selective_scan_reference]


def make_inputs(
    batch=2,
    dim=6,
    length=11,
    states=3,
    groups=2,
    dtype=torch.float64,
    constant='',
    gate=False,
):
    """``constant`` names those of B and C that are the same at all steps."""
    torch.manual_seed(0)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    def weights(name):
        if name in constant:
            return rand(dim, states, dtype=parameter)
        return rand(batch, *[groups] * (groups > 0), states, length)

    inputs = dict(
        u=rand(batch, dim, length),
        delta=rand(batch, dim, length),
        A=(-torch.rand(dim, states, dtype=parameter)).requires_grad_(),
        B=weights('B'),
        C=weights('C'),
        D=rand(dim, dtype=parameter),
        delta_bias=rand(dim, dtype=parameter),
    )
    if gate:
        inputs['z'] = rand(batch, dim, length)
    return inputs


def run(scan, inputs, delta_softplus=True, **options):
    """The result, the last state if any, and the gradient of every input."""
    found = scan(**inputs, delta_softplus=delta_softplus, **options)
    y, *state = found if isinstance(found, tuple) else (found,)
    weight = torch.linspace(-1, 1, y.numel()).to(y).view(y.shape)
    given = [t for t in inputs.values() if t is not None]
    # Without steps, some have none in the reference.
    grads = torch.autograd.grad(y, given, weight, materialize_grads=True)
    return y, *state, *grads


def compare(inputs, limit, device, **options):
    """Errors at most this share of the largest value."""
    got = run(selective_scan, move(inputs, device), **options)
    want = run(selective_scan_reference, inputs, **options)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.device.type == device.type
        largest = float(b.detach().abs().max()) if b.numel() else 0
        torch.testing.assert_close(
            a.cpu(), b, rtol=0, atol=limit * max(1, largest)
        )


def by_definition(u, delta, A, B, C, D, delta_bias, z):
    """h = exp(delta A) h + delta B u; y = (C h + D u) silu(z), one by one."""
    delta = F.softplus(delta + delta_bias[:, None])
    y = torch.zeros_like(u)
    h = A.new_zeros(u.shape[0], *A.shape)

    def at(weights, b, d, t):
        if weights.dim() == 2:
            return weights[d]
        return weights[b, d // (u.shape[1] // weights.shape[1]), :, t]

    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            for t in range(u.shape[2]):
                step = delta[b, d, t]
                added = step * at(B, b, d, t) * u[b, d, t]
                h[b, d] = torch.exp(step * A[d]) * h[b, d] + added
                out = at(C, b, d, t) @ h[b, d] + D[d] * u[b, d, t]
                y[b, d, t] = out * z[b, d, t] / (1 + torch.exp(-z[b, d, t]))
    return y, h


@pytest.mark.parametrize('scan', SCANS)
@pytest.mark.parametrize(
    'groups, constant', [(1, ''), (2, ''), (3, ''), (1, 'B'), (2, 'C')]
)
def test_equals_definition(device, scan, groups, constant):
    inputs = make_inputs(groups=groups, constant=constant, gate=True)
    with torch.no_grad():
        want = by_definition(**inputs)
        got = scan(
            **move(inputs, device), delta_softplus=True, return_last_state=True
        )
    torch.testing.assert_close(tuple(t.cpu() for t in got), want)


def test_ungrouped_weights_and_no_options(device):
    inputs = make_inputs(groups=0)
    inputs.update(D=None, delta_bias=None)
    inputs['delta'] = inputs['delta'].detach().abs()
    got = selective_scan(**move(inputs, device))
    want = selective_scan_reference(**inputs)
    torch.testing.assert_close(got.cpu(), want)


@settings(max_examples=60)
@given(
    batch=st.integers(0, 3),
    channels_per_group=st.sampled_from([1, 3, 31, 32, 33]),
    length=st.sampled_from([0, 1, 2, 33, 63, 64, 65]),
    states=st.integers(1, 16),
    groups=st.integers(0, 3),
    constant=st.sampled_from(['', '', 'B', 'C', 'BC']),
    parameters=st.booleans(),
    gate=st.booleans(),
    softplus=st.booleans(),
    last=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_shape(
    device,
    batch,
    channels_per_group,
    length,
    states,
    groups,
    constant,
    parameters,
    gate,
    softplus,
    last,
    dtype,
):
    channels = channels_per_group * max(1, groups)
    inputs = make_inputs(
        batch, channels, length, states, groups, dtype, constant, gate
    )
    if not softplus:  # keep step sizes positive, so that states decay
        for name in ('delta', 'delta_bias'):
            value = inputs[name].detach().abs()
            inputs[name] = (0.1 * value).requires_grad_()
    if not parameters:
        inputs.update(D=None, delta_bias=None)
    limit = 1e-11 if dtype == torch.float64 else 3e-5
    compare(
        inputs, limit, device, delta_softplus=softplus, return_last_state=last
    )


@pytest.mark.parametrize('constant', ['', 'BC'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_inputs(device, dtype, constant):
    """Read as they are; math and state are float32."""
    inputs = make_inputs(
        dim=40, length=50, dtype=dtype, constant=constant, gate=True
    )
    compare(inputs, 2e-2, device, return_last_state=True)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('scan', SCANS)
def test_a_gated_result_is_rounded_once(device, scan, dtype):
    inputs = move(make_inputs(dim=40, dtype=dtype, gate=True), device)
    wide = {name: t.float() for name, t in inputs.items()}
    with torch.no_grad():
        got = scan(**inputs, delta_softplus=True)
        exact = scan(**wide, delta_softplus=True)
    # On a GPU these are two kernels, which may round differently.
    agree = (got == exact.to(dtype)).double().mean()
    assert agree == 1 if device.type == 'cpu' else agree > 0.99


@pytest.mark.parametrize('constant', ['', 'B', 'C', 'BC'])
def test_16_bit_gradients_are_rounded_once(device, constant):
    """Sums over the channels of a group, too."""
    inputs = make_inputs(
        dim=40, groups=1, dtype=torch.float16, constant=constant
    )
    inputs = move(inputs, device)
    wide = {
        name: t.detach().float().requires_grad_() for name, t in inputs.items()
    }
    narrow_grads, wide_grads = (
        torch.autograd.grad(
            selective_scan(**tensors, delta_softplus=True).sum(),
            list(tensors.values()),
        )
        for tensors in (inputs, wide)
    )
    # On a GPU these are two kernels, which may round differently.
    limit = 0 if device.type == 'cpu' else 1e-3
    for a, b in zip(narrow_grads, wide_grads):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=limit, atol=limit)


@pytest.mark.parametrize('scan', SCANS)
def test_gate_of_another_dtype(device, scan):
    """Under autocast z may have 16 bits where u has 32."""
    inputs = move(make_inputs(dtype=torch.float32, gate=True), device)
    wide = inputs['z'].detach().half().float().requires_grad_()
    want = run(scan, {**inputs, 'z': wide})
    narrow = wide.detach().half().requires_grad_()
    y, *grads = run(scan, {**inputs, 'z': narrow})
    assert y.dtype == torch.float32 and grads[-1].dtype == torch.float16
    torch.testing.assert_close([y, *grads[:-1]], list(want[:-1]))
    torch.testing.assert_close(grads[-1], want[-1].half())


@pytest.mark.parametrize('scan', SCANS)
def test_last_state_has_no_gradient_and_is_the_callers_own(device, scan):
    """mamba-ssm's has none either; generation changes it in place."""
    inputs = move(make_inputs(length=130), device)
    want = run(scan, inputs)
    y, state = scan(**inputs, delta_softplus=True, return_last_state=True)
    assert not state.requires_grad and state.is_contiguous()
    assert state.untyped_storage().nbytes() == state.nbytes
    state.fill_(torch.nan)
    weight = torch.linspace(-1, 1, y.numel()).to(y).view(y.shape)
    grads = torch.autograd.grad(y, list(inputs.values()), weight)
    torch.testing.assert_close((y, *grads), want)


@pytest.mark.parametrize('scan', SCANS)
def test_last_state_where_a_step_of_the_bias_alone_overflows(device, scan):
    """Without softplus such a bias may come with larger steps."""
    inputs = move(make_inputs(dtype=torch.float32), device)
    for name, value in (('delta_bias', -100.0), ('A', -2.0)):
        inputs[name] = torch.full_like(inputs[name], value).requires_grad_()
    inputs['delta'] = (inputs['delta'].detach().abs() + 100).requires_grad_()
    want = run(scan, inputs, False)
    y, state, *grads = run(scan, inputs, False, return_last_state=True)
    assert state.isfinite().all()
    torch.testing.assert_close((y, *grads), want)


def test_autocast_keeps_maths_in_float32(device):
    inputs = make_inputs(dtype=torch.float32, gate=True)
    moved = move(inputs, device)
    options = dict(delta_softplus=True, return_last_state=True)
    with torch.no_grad():
        want = selective_scan_reference(**inputs, **options)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            got = selective_scan(**moved, **options)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-5)


class Scan(torch.nn.Module):
    def forward(self, inputs):
        return selective_scan(
            **inputs, delta_softplus=True, return_last_state=True
        )


@pytest.mark.parametrize('constant', ['', 'C'])
def test_compiles_and_exports(device, constant):
    inputs = make_inputs(
        length=70, dtype=torch.float32, constant=constant, gate=True
    )
    want = run(selective_scan_reference, inputs, return_last_state=True)
    inputs = move(inputs, device)
    torch.compiler.reset()  # or those of other tests count, too
    compiled = torch.compile(Scan(), backend='aot_eager', fullgraph=True)
    got = run(lambda delta_softplus, **given: compiled(given), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
    exported = torch.export.export(Scan(), (inputs,)).module()
    torch.testing.assert_close(exported(inputs), Scan()(inputs))


@pytest.mark.parametrize('constant', ['', 'B', 'C', 'BC'])
def test_gradcheck(device, constant):
    inputs = make_inputs(1, 4, 3, 2, constant=constant, gate=True)
    inputs = move(inputs, device)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *v: selective_scan(**dict(zip(names, v)), delta_softplus=True),
        list(inputs.values()),
    )


# vmap runs the op once for each sample, and says that this takes long.
@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_vmap_gives_each_samples_last_state(device):
    inputs = move(make_inputs(length=70), device)
    u = inputs.pop('u').detach()
    u = torch.stack([u, 2 * u])

    def scan(u):
        return selective_scan(
            u, **inputs, delta_softplus=True, return_last_state=True
        )

    got = torch.func.vmap(scan)(u)
    want = tuple(torch.stack(each) for each in zip(*map(scan, u)))
    torch.testing.assert_close(got, want)


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
        (dict(B=torch.zeros(11)), r'B must be \(B, N, L\), \(B, G, N, L\)'),
        (dict(B=torch.zeros(2, 11)), r'B must have shape \(D, N\) = \(6, 3'),
        (dict(C=torch.zeros(6, 2)), r'C must have shape \(D, N\) = \(6, 3'),
        (dict(B=torch.zeros(2, 2, 3, 9)), r'B must have shape \(B, \[G,\] N'),
        (dict(C=torch.zeros(2, 3, 11)), r'C must have shape \(B, \[G,\] N'),
        (
            dict(B=torch.zeros(2, 4, 3, 11), C=torch.zeros(2, 4, 3, 11)),
            '6 channels do not divide into 4 groups',
        ),
        (dict(D=torch.zeros(5)), r'D must have shape \(D\)'),
        (dict(delta_bias=torch.zeros(1)), r'delta_bias must have shape \(D\)'),
        (dict(A=torch.zeros(6, 3, device='meta')), 'A is on meta but u is on'),
        (dict(z=torch.zeros(2, 6)), r"z must have shape \(B, D, L\), u's"),
        (
            dict(z=torch.zeros(2, 6, 11).cfloat()),
            'z must be real, got torch.complex64; pass z.real to',
        ),
        (dict(return_last_state=1), 'return_last_state must be True or False'),
    ],
)
@pytest.mark.parametrize('scan', SCANS)
def test_wrong_input_is_named(device, change, message, scan):
    inputs = {**make_inputs(), **change}
    moved = {k: move({k: v}, device)[k] for k, v in inputs.items()}
    with pytest.raises(RuntimeError, match=f'^selective_scan: {message}'):
        scan(**moved)


def in_mamba_ssms_order(count, dim=6, with_z=True):
    """u, delta, A, B, C, D, z, delta_bias, delta_softplus, ... of them."""
    inputs = make_inputs(dim=dim, groups=0, gate=True)
    order = 'u delta A B C D z delta_bias'.split()
    values = [inputs[name].detach() for name in order] + [True, True]
    values[6] = values[6] if with_z else None
    return values[:count]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (in_mamba_ssms_order(10), 'takes 8 arguments by position, got 10'),
        (in_mamba_ssms_order(9), 'takes 8 arguments by position, got 9'),
        # With one channel, the bias would pass for a flag.
        (
            in_mamba_ssms_order(8, dim=1, with_z=False),
            'delta_softplus must be True or False, got Tensor',
        ),
        (
            in_mamba_ssms_order(7),
            r'delta_bias must have shape \(D\), got .* which is probably z',
        ),
        ([*in_mamba_ssms_order(6), None, 1], 'delta_softplus must be .* 1'),
        ([*in_mamba_ssms_order(6), None, None], 'delta_softplus must .* None'),
    ],
)
@pytest.mark.parametrize('scan', SCANS)
def test_arguments_in_mamba_ssms_order(arguments, message, scan):
    """Never another result, but one line that tells what to do."""
    with pytest.raises(RuntimeError) as caught:
        scan(*arguments)
    line = f'^selective_scan: {message}.*; pass z, delta_bias, .* by name: .*$'
    assert re.match(line, str(caught.value))
