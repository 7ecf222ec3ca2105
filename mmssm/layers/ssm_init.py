"""Initial values of the selective recurrence's parameters."""

import math

import torch
from torch import Tensor


def linear_init(*shape: int) -> Tensor:
    """Initial weights of ``nn.Linear``: uniform in +-1 / sqrt(fan-in).

    The fan-in is the last axis.
    """
    return torch.empty(shape).uniform_(-1, 1) / math.sqrt(shape[-1])


def s4d_log_rates(num_routes: int, channels: int, d_state: int) -> Tensor:
    """Logarithms of S4D-Real's decay rates 1..N, (K * C, N).

    See section 4 of `S4D <https://arxiv.org/abs/2206.11893>`_.
    """
    rates = torch.arange(1, d_state + 1, dtype=torch.float32)
    return torch.log(rates).repeat(num_routes * channels, 1)


def step_bias(*shape: int) -> Tensor:
    """Biases whose softplus is log-uniform in [0.001, 0.1].

    These are the step sizes of `Mamba <https://arxiv.org/abs/2312.00752>`_,
    section 3.6.
    """
    low, high = math.log(1e-3), math.log(1e-1)
    delta = torch.exp(torch.rand(shape) * (high - low) + low)
    return delta + torch.log(-torch.expm1(-delta))  # inverse softplus


def step_weight(*shape: int) -> Tensor:
    """Weights (..., C, R) of step projections: uniform in +-1 / sqrt(R)."""
    return torch.empty(shape).uniform_(-1, 1) * shape[-1] ** -0.5
