"""Inputs for tests of the state fusion."""

import torch


def make_inputs(
    batch=2,
    height=6,
    width=7,
    channels=5,
    readout=True,
    dtype=torch.float64,
    seed=0,
):
    """Arguments of the op by name."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    inputs = dict(
        x=rand(batch, height, width, channels),
        weight=rand(3, channels, 3, 3, dtype=parameter),
        alpha=rand(3, dtype=parameter),
    )
    if readout:
        inputs['C'] = rand(batch, height, width)
        inputs['D'] = rand(channels, dtype=parameter)
        inputs['u'] = rand(batch, height, width, channels)
    return inputs
