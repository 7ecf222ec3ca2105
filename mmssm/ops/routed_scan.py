"""The routed selective scan: a recurrence along K routes over one map."""

import torch
from torch import Tensor

from . import native

OUTPUTS = ('sum', 'routes', 'states')


def routed_selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    D: Tensor | None = None,
    *,
    routes: Tensor,
    dt_weight: Tensor | None = None,
    dt_bias: Tensor | None = None,
    delta_softplus: bool = True,
    output: str = 'sum',
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Scan a token map along K routes and put the results back in place.

    Along route k, whose t-th token is ``l = routes[k, t]``:

    .. math::
        \Delta_t &= \mathrm{softplus}(W_k\, dt_{l,k} + bias_k) \\
        h_t &= \exp(\Delta_t A_k)\, h_{t-1} + \Delta_t B_{l,k}\, x_l \\
        y_{l,k} &= C_{l,k} \cdot h_t + D_k\, x_l

    which is the selective recurrence of `Mamba
    <https://arxiv.org/abs/2312.00752>`_. Tokens are read and written where
    they lie: no route gets a copy of the map. An index of -1 is a token whose
    x, dt, B and C are zero, and that leaves no result.

    Args:
        x (Tensor): Tokens (B, L, C), float64, float32, bfloat16 or float16.
            The state and all maths are float32 (float64 for float64 tokens).
        dt (Tensor): Step sizes before the bias: (B, L, K, R) if
            ``dt_weight`` is given, else (B, L, K, C).
        A (Tensor): Decay rates (K, C, N), usually negative.
        B (Tensor): Input weights (B, L, K, N), or (B, L, K, G, N) for G
            groups of neighbouring channels.
        C (Tensor, optional): Output weights, shaped like B. Not taken with
            ``output='states'``.
        D (Tensor, optional): Skip weights (K, C). Likewise.
        routes (Tensor): Token indices (K, T), int32 or int64, -1 to L - 1. A
            token that a route passes twice gets the sum of both results.
        dt_weight (Tensor, optional): Low-rank step projection (K, C, R).
        dt_bias (Tensor, optional): Step bias (K, C).
        delta_softplus (bool): Whether step sizes pass softplus. Defaults to
            True.
        output (str): 'sum' over routes (B, L, C); per 'routes' (B, K, L, C);
            or the 'states' h (B, K, L, C, N). Defaults to 'sum'.
        out_dtype (torch.dtype, optional): The result's dtype. Defaults to
            that of x. float32 avoids float16's overflow at 65504.

    Returns:
        Tensor: See ``output``.

    Raises:
        RuntimeError: On shapes, dtypes, devices or indices that do not fit.
    """
    if not native.use_native(x):
        return routed_selective_scan_reference(
            x,
            dt,
            A,
            B,
            C,
            D,
            routes=routes,
            dt_weight=dt_weight,
            dt_bias=dt_bias,
            delta_softplus=delta_softplus,
            output=output,
            out_dtype=out_dtype,
        )
    return torch.ops.mmssm.routed_selective_scan(
        x,
        dt,
        A,
        B,
        C,
        D,
        dt_weight,
        dt_bias,
        routes,
        delta_softplus,
        output,
        out_dtype,
    )


def routed_selective_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    D: Tensor | None = None,
    *,
    routes: Tensor,
    dt_weight: Tensor | None = None,
    dt_bias: Tensor | None = None,
    delta_softplus: bool = True,
    output: str = 'sum',
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`routed_selective_scan` composed from gathers, step by step.

    Arguments and result are the same; it is slow, differentiable to any
    order, and what the native op is tested against.
    """
    _check(x, A, B, C, D, routes, output)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    out_dtype = out_dtype or x.dtype
    x, dt, A, B = (t.to(compute) for t in (x, dt, A, B))
    batch, tokens, channels = x.shape
    num_routes, steps = routes.shape
    groups = B.shape[3] if B.dim() == 5 else 1
    if dt_weight is not None:
        dt = torch.einsum('blkr,kcr->blkc', dt, dt_weight.to(compute))

    def along_routes(values: Tensor) -> Tensor:
        """(B, L, K, ...) -> (T, B, K, ...), zeros where an index is -1."""
        padded = torch.cat([values, torch.zeros_like(values[:, :1])], 1)
        index = torch.where(routes < 0, tokens, routes)
        picked = [padded[:, index[k], k] for k in range(num_routes)]
        return torch.stack(picked, 2).transpose(0, 1)

    def per_channel(weights: Tensor) -> Tensor:
        """(B, L, K, [G,] N) -> (T, B, K, C, N)."""
        grouped = weights if weights.dim() == 5 else weights.unsqueeze(3)
        spread = grouped.repeat_interleave(channels // groups, dim=3)
        return along_routes(spread.to(compute))

    u = along_routes(x.unsqueeze(2).expand(-1, -1, num_routes, -1))
    delta = along_routes(dt)
    if dt_bias is not None:
        delta = delta + dt_bias.to(compute)
    if delta_softplus:
        # Written out: F.softplus is linear above 20, which is not smooth.
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    Bs = per_channel(B)
    state = x.new_zeros(batch, num_routes, channels, A.shape[-1])
    states = []
    for t in range(steps):
        decay = torch.exp(delta[t].unsqueeze(-1) * A)
        state = decay * state + (delta[t] * u[t]).unsqueeze(-1) * Bs[t]
        states.append(state)
    if not states:
        results = state.new_zeros(0, *state.shape)
    else:
        results = torch.stack(states)
    if output != 'states':
        results = (results * per_channel(C)).sum(-1)
        if D is not None:
            results = results + D.to(compute) * u
    # (T, B, K, ...) -> back to (B, K, L, ...), the padding cut off.
    results = results.movedim(0, 2)
    index = torch.where(routes < 0, tokens, routes).long()
    index = index.view(1, num_routes, steps, *[1] * (results.dim() - 3))
    out = results.new_zeros(
        batch, num_routes, tokens + 1, *results.shape[3:]
    ).scatter_add(2, index.expand_as(results), results)[:, :, :tokens]
    return (out.sum(1) if output == 'sum' else out).to(out_dtype)


def _check(x, A, B, C, D, routes, output) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""
    if output not in OUTPUTS:
        raise RuntimeError(
            f'routed_selective_scan: output must be one of {OUTPUTS}, got '
            f'{output!r}'
        )
    if (C is None) != (output == 'states'):
        raise RuntimeError(
            "routed_selective_scan: output='states' takes no C, every other "
            'output needs it'
        )
    if D is not None and output == 'states':
        raise RuntimeError("routed_selective_scan: output='states' takes no D")
    if routes.numel() and not torch.compiler.is_compiling():
        lowest, highest = int(routes.min()), int(routes.max())
        if lowest < -1 or highest >= x.shape[1]:
            raise RuntimeError(
                'routed_selective_scan: routes must hold token indices from '
                f'-1 (a zero token) to L - 1 = {x.shape[1] - 1}, got '
                f'{lowest} to {highest}'
            )


def _fake_forward(
    x,
    dt,
    A,
    B,
    C,
    D,
    dt_weight,
    dt_bias,
    routes,
    delta_softplus=True,
    output='sum',
    out_dtype=None,
):
    torch._check(
        x.dim() == 3,
        lambda: f'routed_selective_scan: x must be (B, L, C), got {x.shape}',
    )
    batch, tokens, channels = x.shape
    num_routes = routes.shape[0]
    shape = {
        'sum': (batch, tokens, channels),
        'routes': (batch, num_routes, tokens, channels),
        'states': (batch, num_routes, tokens, channels, A.shape[-1]),
    }[output]
    return x.new_empty(shape, dtype=out_dtype or x.dtype)


def _fake_backward(grad, *inputs):
    return tuple(
        grad.new_empty(0) if t is None else t.new_empty(t.shape)
        for t in inputs[:8]
    )


if native.is_available():
    torch.library.register_fake('mmssm::routed_selective_scan', _fake_forward)
    torch.library.register_fake(
        'mmssm::_routed_selective_scan_backward', _fake_backward
    )
