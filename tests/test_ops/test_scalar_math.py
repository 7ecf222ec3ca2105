"""Accuracy of the kernels' own exp and softplus, seen through the op."""

import pytest
import torch

from mmssm.ops import routed_selective_scan


def scan(x, dt, A, **options):
    """One channel per value: a scan of the tokens x, dt (1, T, values)."""
    steps, values = x.shape[1:]
    ones = torch.ones(1, steps, 1, 1, device=x.device)
    return routed_selective_scan(
        x,
        dt.unsqueeze(2),
        A.view(1, values, 1),
        ones,
        ones,
        routes=torch.arange(steps, device=x.device).unsqueeze(0),
        **options,
    )


def ulp_error(got, want):
    """Largest error in units of the last place of the float32 result."""
    spacing = torch.nextafter(want.float(), torch.tensor(torch.inf))
    spacing = (spacing - want.float()).double()
    return float(((got.double() - want) / spacing).abs().max())


def test_exp_within_2_ulp():
    """h_1 = 1 (step 1, input 1), then h_2 = exp(-a) h_1 with input 0."""
    exponents = torch.linspace(-86.9, 0, 40001)
    x = torch.zeros(1, 2, len(exponents))
    x[:, 0] = 1
    dt = torch.ones(1, 2, len(exponents))
    got = scan(x, dt, exponents, delta_softplus=False)[0, 1]
    assert ulp_error(got, exponents.double().exp()) <= 2


def test_softplus_within_4_ulp():
    """One step from h_0 = 0 returns softplus(raw) * 1 * 1."""
    raw = torch.linspace(-80, 80, 40001)
    got = scan(
        torch.ones(1, 1, len(raw)), raw.view(1, 1, -1), -torch.ones(len(raw))
    )
    want = torch.logaddexp(raw.double(), torch.zeros((), dtype=torch.float64))
    assert ulp_error(got[0, 0], want) <= 4


@pytest.mark.cuda
@pytest.mark.parametrize('device', ['cuda'], indirect=True)
def test_a_gpus_exp_and_softplus(device):
    """2 ulp and 4 ulp, and the rounding of the exponent x log2(e): its own
    half unit and what the constant lacks, together 1.25 |x| / 2^24.
    """
    exponents = torch.linspace(-86.9, 0, 40001)
    x = torch.zeros(1, 2, len(exponents), device=device)
    x[:, 0] = 1
    y = scan(x, torch.ones_like(x), exponents.to(device), delta_softplus=False)
    raw = torch.linspace(-80, 80, 40001)
    ones = torch.ones(1, 1, len(raw), device=device)
    z = scan(ones, raw.to(device).view(1, 1, -1), -ones[0, 0])
    zero = torch.zeros((), dtype=torch.float64)
    for got, want, ulp, exponent in (
        (y[0, 1], exponents.double().exp(), 2, exponents),
        (z[0, 0], torch.logaddexp(raw.double(), zero), 4, raw.clamp(max=0)),
    ):
        error = (got.cpu().double() / want - 1).abs()
        limit = ulp * 2**-23 + 1.25 * exponent.double().abs() * 2**-24
        assert (error <= limit).all()
