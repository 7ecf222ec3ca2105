"""Initial values: their bounds, and how they are distributed within."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmssm.layers.ssm_init import (
    linear_init,
    s4d_log_rates,
    step_bias,
    step_weight,
)


def assert_uniform(values, bound):
    """In [-bound, bound], with the standard deviation that follows."""
    assert 0.98 * bound <= values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert abs(values.mean().item()) < 0.03 * bound


def test_linear_maps_start_as_pytorchs():
    torch.manual_seed(0)
    weight = linear_init(4, 50, 36)
    assert weight.shape == (4, 50, 36)
    assert_uniform(weight, 1 / 6)
    assert_uniform(nn.Linear(36, 200).weight, 1 / 6)


def test_step_projections_depend_on_the_rank():
    torch.manual_seed(0)
    weight = step_weight(4, 300, 9)
    assert weight.shape == (4, 300, 9)
    assert_uniform(weight, 1 / 3)


@pytest.mark.parametrize(
    'num_routes, channels, d_state', [(1, 3, 1), (4, 2, 5)]
)
def test_rates_are_those_of_s4d(num_routes, channels, d_state):
    log_rates = s4d_log_rates(num_routes, channels, d_state)
    assert log_rates.shape == (num_routes * channels, d_state)
    for row in log_rates.tolist():
        want = [math.log(n) for n in range(1, d_state + 1)]
        assert row == pytest.approx(want)


def test_steps_are_uniform_in_the_logarithm():
    torch.manual_seed(0)
    bias = step_bias(4, 5000)
    assert bias.shape == (4, 5000)
    # From a thousandth to a tenth: one decade to each side of a hundredth.
    decades = F.softplus(bias.double()).log10() + 2
    assert_uniform(decades / (1 + 1e-5), 1)
