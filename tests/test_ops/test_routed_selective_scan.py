"""The native routed scan against its reference."""

import os
import subprocess
import sys

import pytest
import torch
from functorch.compile import make_boxed_func
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import move
from scan_inputs import differentiable, for_output, make_inputs
from torch._dynamo.backends.common import aot_autograd
from torch.utils.checkpoint import checkpoint

from mmssm.ops import (
    native,
    routed_selective_scan,
    routed_selective_scan_reference,
)

OPS = torch.ops.mmssm
SCANS = [routed_selective_scan, routed_selective_scan_reference]
TOKEN_INPUTS = ('x', 'dt', 'B', 'C')


def gradients(y, inputs, weight):
    tensors = list(differentiable(inputs).values())
    return torch.autograd.grad(y, tensors, weight.to(y.device))


def compare(inputs, forward_tolerance, gradient_tolerance, device):
    """Outputs and gradients, relative to the largest value of each."""
    moved = move(inputs, device)
    got = routed_selective_scan(**moved)
    want = routed_selective_scan_reference(**inputs)
    assert got.shape == want.shape and got.dtype == want.dtype
    torch.manual_seed(0)
    weight = torch.randn(got.shape).to(got.dtype)
    results = [(got, want, forward_tolerance)]
    results += [
        (a, b, gradient_tolerance)
        for a, b in zip(
            gradients(got, moved, weight), gradients(want, inputs, weight)
        )
    ]
    for a, b, tolerance in results:
        assert a.dtype == b.dtype and a.device.type == device.type
        a, b = a.cpu().double(), b.double()
        assert torch.isfinite(a).all()
        if b.numel():
            assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(
                1
            )


@settings(max_examples=60)
@given(
    batch=st.integers(0, 3),
    tokens=st.sampled_from([1, 2, 7, 31, 32, 33, 64, 65, 97]),
    channels_per_group=st.sampled_from([1, 3, 8, 31, 32, 33, 40]),
    num_routes=st.integers(1, 8),
    states=st.integers(1, 16),
    rank=st.integers(0, 5),
    groups=st.sampled_from([None, 1, 2, 3]),
    skip=st.booleans(),
    bias=st.booleans(),
    padding=st.booleans(),
    extra=st.sampled_from([0, 0, 1, 5]),
    softplus=st.booleans(),
    output=st.sampled_from(['sum', 'routes', 'states']),
    seed=st.integers(0, 10**6),
)
def test_sweep_against_reference(
    device,
    channels_per_group,
    groups,
    tokens,
    extra,
    softplus,
    output,
    **sizes,
):
    """Any shape, in float64 and float32, forward and backward."""
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        inputs = make_inputs(
            tokens=tokens,
            steps=tokens + extra,
            channels=channels_per_group * (groups or 1),
            groups=groups,
            dtype=dtype,
            **sizes,
        )
        if not softplus:  # keep step sizes positive, so that states decay
            inputs['dt'] = inputs['dt'].detach().abs().requires_grad_()
            for name in ('dt_weight', 'dt_bias'):
                if inputs[name] is not None:
                    value = inputs[name].detach().abs()
                    inputs[name] = (0.1 * value).requires_grad_()
        inputs = for_output(inputs, output)
        inputs['delta_softplus'] = softplus
        compare(inputs, tolerance, tolerance, device)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tokens(device, dtype):
    """Tokens are read as they are; math and state are float32."""
    inputs = make_inputs(dtype=dtype, tokens=50, channels=40)
    compare(inputs, 1e-2, 2e-2, device)


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
@pytest.mark.parametrize('rank', [0, 2])
def test_gradcheck(device, output, rank):
    inputs = for_output(
        make_inputs(tokens=5, channels=3, rank=rank, padding=True), output
    )
    inputs = move(inputs, device)
    names = list(differentiable(inputs))

    def scan(*values):
        return routed_selective_scan(**{**inputs, **dict(zip(names, values))})

    # A GPU adds to a token from all its routes in any order.
    assert torch.autograd.gradcheck(
        scan,
        [inputs[n] for n in names],
        nondet_tol=0 if device.type == 'cpu' else 1e-10,
    )


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
@pytest.mark.parametrize('groups', [None, 2])
def test_opcheck(device, output, groups):
    inputs = for_output(make_inputs(channels=4, groups=groups), output)
    inputs = move(inputs, device)
    order = 'x dt A B C D dt_weight dt_bias routes'.split()
    args = [inputs[name] for name in order]
    torch.library.opcheck(
        torch.ops.mmssm.routed_selective_scan.default, (*args, True, output)
    )


def test_views_are_not_copied_wrongly(device):
    """dt, B and C may be parts of one projection, x a transposed map."""
    inputs = make_inputs(tokens=12, channels=6, rank=4, states=2)
    projected = torch.randn(2, 12, 3, 8, dtype=torch.float64)
    x = torch.randn(2, 6, 12, dtype=torch.float64)

    def views(inputs):
        dt, B, C = inputs['projected'].split([4, 2, 2], -1)
        x = inputs['x'].transpose(1, 2)
        return {**inputs, 'x': x, 'dt': dt, 'B': B, 'C': C}

    def scan(inputs, scan=routed_selective_scan):
        inputs = views(inputs)
        del inputs['projected']
        return scan(**inputs)

    inputs.update(projected=projected, x=x)
    got = scan(move(inputs, device))
    want = scan(inputs, routed_selective_scan_reference)
    torch.testing.assert_close(got.cpu(), want)


class Scan(torch.nn.Module):
    def forward(self, inputs):
        return routed_selective_scan(**inputs)


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
def test_compiles_and_exports(device, output):
    inputs = for_output(make_inputs(dtype=torch.float32), output)
    want = routed_selective_scan_reference(**inputs)
    weight = torch.randn(want.shape)
    wanted = gradients(want, inputs, weight)
    inputs = move(inputs, device)
    torch.compiler.reset()  # or those of other tests count, too
    compiled = torch.compile(Scan(), backend='aot_eager', fullgraph=True)
    y = compiled(inputs)
    torch.testing.assert_close(y.cpu(), want, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients(y, inputs, weight), wanted):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
    constant = {
        k: v.detach() if torch.is_tensor(v) else v for k, v in inputs.items()
    }
    y = torch.export.export(Scan(), (constant,)).module()(constant)
    torch.testing.assert_close(y.cpu(), want, rtol=1e-4, atol=1e-5)


def test_autocast_keeps_maths_in_float32(device):
    inputs = make_inputs(dtype=torch.bfloat16, tokens=20)
    inputs['dt'] = inputs['dt'].float()  # mixed inputs stay as they are
    want = routed_selective_scan_reference(**inputs)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        reference = routed_selective_scan_reference(**inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = routed_selective_scan(**move(inputs, device))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(reference, want, rtol=0, atol=0)
    # The same math in float32, rounded once.
    wide = {
        k: v.float() if k in TOKEN_INPUTS else v for k, v in inputs.items()
    }
    exact = routed_selective_scan_reference(**wide).bfloat16()
    torch.testing.assert_close(got.cpu(), exact, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize('scan', SCANS)
def test_large_sums_of_float16_stay_finite(device, scan):
    """Without being asked, the result is float32."""
    inputs = make_inputs(dtype=torch.float16, tokens=40)
    inputs['D'] = torch.full_like(inputs['D'], 6e4)
    inputs = move(inputs, device)
    narrow = scan(**inputs, out_dtype=torch.float16)
    assert narrow.dtype == torch.float16 and not narrow.isfinite().all()
    for out_dtype in (None, torch.float32):
        wide = scan(**inputs, out_dtype=out_dtype)
        assert wide.dtype == torch.float32 and wide.isfinite().all()


def graphs_of(inputs):
    """The ops of the forward graph, and of the backward graph if any."""
    graphs = []

    def record(graph, given):
        calls = [n for n in graph.graph.nodes if n.op == 'call_function']
        graphs.append([node.target for node in calls])
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=record)
    y = torch.compile(Scan(), backend=backend, fullgraph=True)(inputs)
    if y.requires_grad:
        y.sum().backward()
    return graphs


def test_graphs_hold_one_op_each(device):
    """And checkpoints only where a gradient is to come."""
    scan = OPS.routed_selective_scan.default
    inputs = move(make_inputs(dtype=torch.float32), device)
    with torch.no_grad():
        (forward,) = graphs_of(inputs)
        exported = torch.export.export(Scan(), (inputs,))
    assert forward.count(scan) == 1
    (node,) = [n for n in exported.graph.nodes if n.target == scan]
    assert True not in node.args[12:]  # keep_checkpoints
    forward, backward = graphs_of(inputs)
    assert forward.count(scan) == 1
    assert backward.count(OPS._routed_selective_scan_backward.default) == 1


def test_an_exported_program_has_gradients(device):
    """Though it was exported for inference, and its graph says so."""
    inputs = move(make_inputs(dtype=torch.float32), device)
    constant = {k: v.detach() for k, v in inputs.items()}
    exported = torch.export.export(Scan(), (constant,)).module()
    weight = torch.randn(inputs['x'].shape)
    got, want = (
        gradients(scan(inputs), inputs, weight) for scan in (exported, Scan())
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('output', ['sum', 'states'])
def test_activation_checkpointing(device, output):
    inputs = move(for_output(make_inputs(), output), device)
    want = routed_selective_scan(**inputs)
    got = checkpoint(Scan(), inputs, use_reentrant=False)
    weight = torch.randn(want.shape)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        gradients(got, inputs, weight), gradients(want, inputs, weight)
    )


def test_large_steps_stay_finite(device):
    """softplus and exp neither overflow nor turn to NaN at the extremes."""
    inputs = make_inputs(dtype=torch.float32, tokens=33, rank=0)
    for scale in (-200.0, 200.0):
        inputs['dt'] = torch.full_like(inputs['dt'], scale).requires_grad_()
        compare(inputs, 1e-5, 1e-4, device)


@pytest.mark.parametrize('output', ['sum', 'routes'])
def test_no_routes_give_zeros(device, output):
    inputs = for_output(make_inputs(num_routes=0), output)
    inputs['routes'] = torch.zeros(0, 9, dtype=torch.int32)
    got = routed_selective_scan(**move(inputs, device))
    assert got.shape == ((2, 9, 5) if output == 'sum' else (2, 0, 9, 5))
    assert not got.any()


def test_second_derivative_is_refused(device):
    inputs = move(make_inputs(), device)
    y = routed_selective_scan(**inputs)
    (g,) = torch.autograd.grad(y.sum(), inputs['x'], create_graph=True)
    with pytest.raises(RuntimeError, match='no second derivative'):
        g.sum().backward()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(x=torch.zeros(2, 9)), r'x must be \(B, L, C\)'),
        (dict(A=torch.zeros(3, 5)), r'A must be \(K, C, N\)'),
        (dict(D=torch.zeros(5)), r'D must have shape \(K, C\)'),
        (dict(B=torch.zeros(2, 9, 3, 7)), 'B must have shape'),
        (dict(dt=torch.zeros(2, 9, 3, 9)), r'dt must have shape \(B, L, K, R'),
        (dict(routes=torch.zeros(3, 9)), 'int32 or int64'),
        (dict(routes=torch.zeros(9).int()), r'routes must be \(K, T\)'),
        (dict(A=torch.zeros(3, 5, 0)), 'A needs at least one state'),
        (dict(B=torch.zeros(2, 9, 3)), r'B must be \(B, L, K, N\) or'),
        (
            dict(B=torch.zeros(2, 9, 3, 2, 2), C=torch.zeros(2, 9, 3, 2, 2)),
            '5 channels do not divide into 2 groups',
        ),
        (dict(dt_weight=torch.zeros(4)), r'dt_weight must be \(K, C, R\)'),
        (dict(dt_bias=torch.zeros(5)), 'dt_bias must have shape'),
        (dict(C=torch.zeros(1, 9, 3, 2)), 'C must have shape'),
        (
            dict(dt=torch.zeros(2, 9, 3, 0), dt_weight=torch.zeros(3, 5, 0)),
            'dt_weight needs at least one column',
        ),
        (dict(out_dtype=torch.int32), 'out_dtype must be floating-point'),
        (dict(output='mean'), "'sum', 'routes' or 'states'"),
        (dict(output='states'), 'takes no C'),
        (dict(C=None), 'every other output needs it'),
    ],
)
@pytest.mark.parametrize('scan', SCANS)
def test_wrong_input_says_what_was_expected(device, change, message, scan):
    inputs = move({**make_inputs(), **change}, device)
    message = f'^routed_selective_scan: .*{message}'
    with pytest.raises(RuntimeError, match=message):
        scan(**inputs)


# On a GPU a kernel finds them, whose assertion ends the process's use of it.
@pytest.mark.parametrize('index', [9, -2, 2**32])
@pytest.mark.parametrize('scan', SCANS)
def test_routes_that_leave_the_map_are_refused(index, scan):
    inputs = {**make_inputs(), 'routes': torch.full((3, 9), index)}
    with pytest.raises(RuntimeError, match='token indices from -1'):
        scan(**inputs)


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_every_instruction_set(capability):
    """The processor's best set serves above; here the lesser ones do."""
    some = 'gradcheck or large_steps or 16_bit'
    subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', __file__, '-k', some]
        + ['-m', 'not cuda'],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        check=True,
    )


def test_missing_extension_warns_once_and_serves(monkeypatch):
    monkeypatch.setattr(native, '_DEVICES', frozenset())
    monkeypatch.setattr(native, '_PROBLEM', 'No module named mmssm._ext')
    native._warn_slow.cache_clear()
    inputs = make_inputs()
    with pytest.warns(UserWarning, match='build it with `pip install') as seen:
        y = routed_selective_scan(**inputs)
        routed_selective_scan(**inputs)
    assert len(seen) == 1 and '\n' not in str(seen[0].message)
    monkeypatch.undo()
    torch.testing.assert_close(y, routed_selective_scan(**inputs))
