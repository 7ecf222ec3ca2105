"""Inputs for tests of the tree scan."""

import torch


def path(tokens):
    return torch.arange(-1, tokens - 1, dtype=torch.int32)


def star(tokens):
    parents = torch.zeros(tokens, dtype=torch.int32)
    parents[0] = -1
    return parents


def binary(tokens):
    return (torch.arange(tokens, dtype=torch.int32) - 1).div(
        2, rounding_mode='floor'
    )


def random_tree(tokens, reach=None, seed=0):
    """Parents at most ``reach`` tokens before; then tokens are renamed."""
    generator = torch.Generator().manual_seed(seed)
    names = torch.randperm(tokens, generator=generator)
    parents = torch.full((tokens,), -1, dtype=torch.int32)
    for i in range(1, tokens):
        first = max(0, i - reach) if reach else 0
        parent = torch.randint(first, i, (), generator=generator)
        parents[names[i]] = int(names[parent])
    return parents


def make_inputs(
    parents,
    batch=2,
    channels=5,
    rank=3,
    bias=True,
    dtype=torch.float64,
    seed=0,
):
    """Keyword arguments of the op; ``rank`` 0 gives step sizes in full."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype)

    tokens = len(parents)
    inputs = dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, rank or channels),
        A=-rand(channels, dtype=parameter).abs() - 0.05,
        B=rand(batch, tokens),
    )
    if rank:
        inputs['dt_weight'] = rand(channels, rank, dtype=parameter)
    if bias:
        inputs['dt_bias'] = rand(channels, dtype=parameter)
    for tensor in inputs.values():
        tensor.requires_grad_()
    return {**inputs, 'parents': parents}


def leaves(inputs):
    """The differentiable ones, in their order."""
    return [t for name, t in inputs.items() if name != 'parents']
