"""The chunked matrix form against the plain recurrence."""

import pytest
import torch

from mmssm.ops import chunked_ssd, chunked_ssd_reference


def make_inputs(steps, scale=1.0):
    torch.manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    delta = scale * torch.rand(2, steps, 3, 4, dtype=torch.float64)
    return dict(
        x=rand(2, steps, 3, 4, 5),
        delta=delta.requires_grad_(),
        A=(-torch.rand(3, 4, dtype=torch.float64)).requires_grad_(),
        B=rand(2, steps, 3, 6),
        C=rand(2, steps, 3, 6),
        D=rand(3, 4, 5),
    )


@pytest.mark.parametrize('steps', [1, 7, 8, 9, 33])
@pytest.mark.parametrize('scale', [1.0, 1000.0])
def test_equals_recurrence(steps, scale):
    """Also for steps so large that a decay's inverse would overflow."""
    inputs = make_inputs(steps, scale)
    got = chunked_ssd(**inputs, chunk=8)
    want = chunked_ssd_reference(**inputs)
    torch.testing.assert_close(got, want)
    leaves = list(inputs.values())
    grads = torch.autograd.grad(got.square().sum(), leaves)
    wanted = torch.autograd.grad(want.square().sum(), leaves)
    # A's gradient nearly cancels when every step forgets the state, so errors
    # are measured against the largest gradient of all.
    largest = max(float(g.abs().max()) for g in wanted)
    for a, b in zip(grads, wanted):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-11 * largest)


def test_gradcheck():
    inputs = make_inputs(5)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *v: chunked_ssd(**dict(zip(names, v)), chunk=2),
        list(inputs.values()),
        fast_mode=True,
    )
