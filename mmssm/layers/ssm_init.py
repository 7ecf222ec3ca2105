"""Initial values of the selective recurrence's parameters."""

import math

import torch
from torch import Tensor


def linear_init(*shape: int) -> Tensor:
    """``nn.Linear``'s own initial weights: uniform in +-1 / sqrt(fan-in)."""
    return torch.empty(shape).uniform_(-1, 1) / math.sqrt(shape[-1])


def s4d_log_rates(num_routes: int, channels: int, d_state: int) -> Tensor:
    """(K * C, N): log(1..N), S4D-Real's decay rates (arXiv 2206.11893)."""
    rates = torch.arange(1, d_state + 1, dtype=torch.float32)
    return torch.log(rates).repeat(num_routes * channels, 1)


def step_bias(
    *shape: int, low: float = 1e-3, high: float = 1e-1, floor: float = 1e-4
) -> Tensor:
    """Biases whose softplus is log-uniform in [low, high] (Mamba, 3.6)."""
    span = math.log(high) - math.log(low)
    steps = torch.exp(torch.rand(shape) * span + math.log(low)).clamp_min(
        floor
    )
    return steps + torch.log(-torch.expm1(-steps))  # inverse softplus


def step_weight(*shape: int) -> Tensor:
    """Low-rank step projection: uniform in +-1 / sqrt(rank)."""
    return torch.empty(shape).uniform_(-1, 1) * shape[-1] ** -0.5
