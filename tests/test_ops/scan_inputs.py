"""Inputs for tests of the routed scan."""

import torch


def make_inputs(
    batch=2,
    tokens=9,
    channels=5,
    num_routes=3,
    states=2,
    rank=4,
    groups=None,
    skip=True,
    bias=True,
    padding=False,
    steps=None,
    dtype=torch.float64,
    seed=0,
):
    """Keyword arguments of the op; ``rank`` 0 gives step sizes in full."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    lowest = -1 if padding else 0
    weights = (states,) if groups is None else (groups, states)
    routes = torch.randint(
        lowest, tokens, (num_routes, steps or tokens), generator=generator
    )
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    A = -torch.rand(
        num_routes, channels, states, generator=generator, dtype=parameter
    )
    return dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, num_routes, rank or channels),
        A=(A - 0.05).requires_grad_(),
        B=rand(batch, tokens, num_routes, *weights),
        C=rand(batch, tokens, num_routes, *weights),
        D=rand(num_routes, channels) if skip else None,
        routes=routes,
        dt_weight=rand(num_routes, channels, rank) if rank else None,
        dt_bias=rand(num_routes, channels) if bias else None,
    )


def for_output(inputs, output):
    """Inputs that ``output`` takes: 'states' has neither C nor D."""
    if output == 'states':
        inputs = {**inputs, 'C': None, 'D': None}
    return {**inputs, 'output': output}


def differentiable(inputs):
    return {
        k: v
        for k, v in inputs.items()
        if torch.is_tensor(v) and v.is_floating_point()
    }
