"""What the native routed scan does beyond its reference."""

import sys
from pathlib import Path

import pytest
import torch
from on_device import move
from scan_inputs import differentiable, for_output, make_inputs

import mmssm
from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
)

OPS = torch.ops.mmssm
ORDER = 'x dt A B C D dt_weight dt_bias routes'.split()


@pytest.fixture
def with_threads():
    """Set the number of threads, for this test only."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize('steps', [1, 63, 64, 65, 200])
def test_checkpoints_are_the_states_before_each_64th_step(device, steps):
    inputs = make_inputs(tokens=steps, num_routes=2, channels=35, states=3)
    inputs['routes'] = torch.stack(
        [torch.arange(steps), torch.arange(steps).flip(0)]
    )
    inputs = move(inputs, device)
    arguments = [inputs[name] for name in ORDER]
    with torch.no_grad():
        y, checkpoints = OPS.routed_selective_scan(
            *arguments, True, 'sum', None, True
        )
        states = routed_selective_scan(**for_output(inputs, 'states'))
        torch.testing.assert_close(y, routed_selective_scan(**inputs))
    # (B, K, L, C, N) in route order, the state after each step.
    after = torch.stack(
        [states[:, k, route] for k, route in enumerate(inputs['routes'])], 1
    )
    want = torch.zeros_like(checkpoints)
    want[:, :, 1:] = after[:, :, 63:-1:64].transpose(3, 4)
    torch.testing.assert_close(checkpoints, want)


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
def test_opcheck_of_the_pair(device, output):
    inputs = for_output(make_inputs(channels=4, tokens=70), output)
    arguments = [
        None if v is None else v.detach().to(device)
        for v in (inputs[name] for name in ORDER)
    ]
    settings = (*arguments, True, output)
    torch.library.opcheck(
        OPS.routed_selective_scan.default, (*settings, None, True)
    )
    y, checkpoints = OPS.routed_selective_scan(*settings, None, True)
    torch.library.opcheck(
        OPS._routed_selective_scan_backward.default,
        (torch.ones_like(y), checkpoints, *settings),
    )


@pytest.mark.parametrize('change', ['grad', 'complex', 'checkpoints', 'dtype'])
def test_backward_checks_what_it_is_given(device, change):
    inputs = move(make_inputs(), device)
    settings = (*(inputs[name] for name in ORDER), True, 'sum')
    with torch.no_grad():
        grad, checkpoints = OPS.routed_selective_scan(*settings, None, True)
        if change == 'grad':
            grad = grad[:, 1:]
        elif change == 'complex':
            grad = grad.to(torch.complex128)
        elif change == 'checkpoints':
            checkpoints = checkpoints[:, 1:]
        else:
            checkpoints = checkpoints.float()
        with pytest.raises(RuntimeError, match='must (have shape|be)'):
            OPS._routed_selective_scan_backward(grad, checkpoints, *settings)


@pytest.mark.parametrize('keep', [False, True])
def test_checkpoints_are_kept_where_a_gradient_can_come(device, keep):
    """And else where they are asked for."""

    def are_kept(context, inputs):
        arguments = [inputs[name] for name in ORDER]
        with context:
            _, checkpoints = OPS.routed_selective_scan(
                *arguments, True, 'sum', None, keep
            )
        return checkpoints.numel() > 0

    inputs = move(make_inputs(), device)
    constant = {
        k: v.detach() if torch.is_tensor(v) else v for k, v in inputs.items()
    }
    assert are_kept(torch.enable_grad(), inputs)
    assert are_kept(torch.no_grad(), inputs) == keep
    assert are_kept(torch.inference_mode(), constant) == keep
    assert are_kept(torch.enable_grad(), constant) == keep


@pytest.mark.parametrize('batch, channels', [(1, 20), (1, 96), (3, 70)])
def test_any_number_of_threads_gives_the_same(batch, channels, with_threads):
    """But for rounding: sums are added up in another order."""
    inputs = make_inputs(batch, 150, channels, 4, dtype=torch.float32)
    leaves = list(differentiable(inputs).values())
    results = []
    for count in (1, 2, 3, 5):
        with_threads(count)
        y = routed_selective_scan(**inputs)
        results.append((y, torch.autograd.grad(y.square().sum(), leaves)))
        again = routed_selective_scan(**inputs)
        assert torch.equal(again, y)
    first, gradients = results[0]
    for y, others in results[1:]:
        for a, b in zip([first, *gradients], [y, *others]):
            torch.testing.assert_close(
                a, b, rtol=1e-4, atol=1e-5 * float(b.detach().abs().max())
            )


@pytest.mark.skipif(sys.platform != 'linux', reason='OpenMP flag of Linux')
def test_threads_are_compiled_in():
    """Without OpenMP at::parallel_for, a header, silently runs one thread."""
    (library,) = Path(mmssm.__file__).parent.glob('_ext*.so')
    code = library.read_bytes()
    assert b'GOMP_parallel' in code or b'__kmpc_fork_call' in code


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
def test_map_without_tokens(device, output):
    """Routes of zero tokens only: no result, and gradients of zero."""
    inputs = for_output(make_inputs(tokens=1), output)
    for name in ('x', 'dt', 'B', 'C'):
        if inputs[name] is not None:
            inputs[name] = inputs[name].detach()[:, :0].requires_grad_()
    inputs['routes'] = torch.full((3, 5), -1)
    inputs = move(inputs, device)
    leaves = list(differentiable(inputs).values())
    for scan in (routed_selective_scan, routed_selective_scan_reference):
        y = scan(**inputs)
        assert y.numel() == 0
        for g in torch.autograd.grad(y.sum(), leaves, allow_unused=True):
            assert g is None or not g.any()


def test_forward_mode_is_refused(device):
    inputs = move(make_inputs(), device)
    x = inputs.pop('x').detach()
    with pytest.raises(RuntimeError, match='no forward-mode derivative'):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            routed_selective_scan(dual, **inputs)
