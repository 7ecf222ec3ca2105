"""The 1-D scan against a loop written from its definition."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.ops import selective_scan, selective_scan_reference


def make_inputs(batch=2, dim=6, length=11, states=3, groups=2):
    torch.manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    weights = (groups, states) if groups else (states,)
    return dict(
        u=rand(batch, dim, length),
        delta=rand(batch, dim, length),
        A=(-torch.rand(dim, states, dtype=torch.float64)).requires_grad_(),
        B=rand(batch, *weights, length),
        C=rand(batch, *weights, length),
        D=rand(dim),
        delta_bias=rand(dim),
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


@pytest.mark.parametrize('scan', [selective_scan, selective_scan_reference])
@pytest.mark.parametrize('groups', [1, 2, 3])
def test_equals_definition(scan, groups):
    inputs = make_inputs(groups=groups)
    with torch.no_grad():
        want = by_definition(**inputs)
        got = scan(**inputs, delta_softplus=True)
    torch.testing.assert_close(got, want)


def test_ungrouped_weights_and_no_options():
    inputs = make_inputs(groups=0)
    inputs.update(D=None, delta_bias=None)
    inputs['delta'] = inputs['delta'].detach().abs()
    got = selective_scan(**inputs)
    torch.testing.assert_close(got, selective_scan_reference(**inputs))


def test_gradcheck():
    inputs = make_inputs(length=5)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *v: selective_scan(**dict(zip(names, v)), delta_softplus=True),
        list(inputs.values()),
    )


def test_opcheck():
    args = (*make_inputs().values(), True)
    torch.library.opcheck(torch.ops.mmssm.selective_scan.default, args)


def test_wrong_delta_is_named():
    inputs = make_inputs()
    inputs['delta'] = inputs['delta'][:, :1]
    with pytest.raises(RuntimeError, match="delta must have u's shape"):
        selective_scan(**inputs)
