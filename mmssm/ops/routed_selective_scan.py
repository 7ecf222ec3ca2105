"""The routed selective scan: a recurrence along K routes over one map."""

import torch
from torch import Tensor

from . import native
from .gradients import register_gradient

OUTPUTS = ('sum', 'routes', 'states')
CHECKPOINT_STEPS = 64  # kCheckpointSteps in csrc


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
        RuntimeError: On shapes, dtypes, devices or indices that do not fit,
            and where a second or a forward-mode derivative is asked for:
            :func:`routed_selective_scan_reference` has those, and works with
            ``torch.func``.
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
    _check(x, dt, A, B, C, D, routes, dt_weight, dt_bias, output, out_dtype)
    out_dtype = out_dtype or x.dtype
    # The maths must not follow autocast to 16 bits.
    with torch.autocast(x.device.type, enabled=False):
        return _scan_step_by_step(
            x,
            dt,
            A,
            B,
            C,
            D,
            routes,
            dt_weight,
            dt_bias,
            delta_softplus,
            output,
        ).to(out_dtype)


def _scan_step_by_step(
    x, dt, A, B, C, D, routes, dt_weight, dt_bias, delta_softplus, output
) -> Tensor:
    """The reference's maths, in float32 or float64."""
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, dt, A, B = (t.to(compute) for t in (x, dt, A, B))
    batch, tokens, channels = x.shape
    num_routes, steps = routes.shape
    groups = B.shape[3] if B.dim() == 5 else 1
    if dt_weight is not None:
        dt = torch.einsum('blkr,kcr->blkc', dt, dt_weight.to(compute))

    def along_routes(values: Tensor) -> Tensor:
        """(B, L, K, ...) -> (T, B, K, ...), zeros where an index is -1."""
        zero = values.new_zeros(batch, 1, *values.shape[2:])
        padded = torch.cat([values, zero], 1)
        index = torch.where(routes < 0, tokens, routes)
        if not num_routes:
            return padded.new_zeros(steps, *padded[:, 0].shape)
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
    # Unbound, not indexed: the backward of an index fills a whole tensor.
    for delta_t, u_t, B_t in zip(delta.unbind(), u.unbind(), Bs.unbind()):
        decay = torch.exp(delta_t.unsqueeze(-1) * A)
        state = decay * state + (delta_t * u_t).unsqueeze(-1) * B_t
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
    return out.sum(1) if output == 'sum' else out


def _check(
    x, dt, A, B, C, D, routes, dt_weight, dt_bias, output, out_dtype
) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise RuntimeError(f'routed_selective_scan: {message}')

    def has_shape(
        name: str, tensor: Tensor | None, axes: str, *want: int
    ) -> None:
        require(
            tensor is None or tensor.shape == want,
            f'{name} must have shape {axes} = {want}, got '
            f'{None if tensor is None else tuple(tensor.shape)}',
        )

    require(
        output in OUTPUTS,
        f"output must be 'sum', 'routes' or 'states', got {output!r}",
    )
    require(
        (C is None) == (output == 'states'),
        "output='states' takes no C, every other output needs it",
    )
    require(D is None or output != 'states', "output='states' takes no D")
    require(
        out_dtype is None or out_dtype.is_floating_point,
        f'out_dtype must be floating-point, got {out_dtype}',
    )
    require(x.dim() == 3, f'x must be (B, L, C), got {tuple(x.shape)}')
    require(A.dim() == 3, f'A must be (K, C, N), got {tuple(A.shape)}')
    require(
        routes.dtype in (torch.int32, torch.int64),
        f'routes must be int32 or int64, got {routes.dtype}',
    )
    (batch, tokens, channels), count = x.shape, len(routes)
    states = A.shape[2]
    groups = B.shape[3:-1]
    rank = channels if dt_weight is None else dt_weight.shape[-1]
    require(
        rank > 0 or dt_weight is None,
        'dt_weight needs at least one column',
    )
    has_shape('A', A, '(K, C, N)', count, channels, states)
    axes = '(B, L, K, C)' if dt_weight is None else '(B, L, K, R)'
    has_shape('dt', dt, axes, batch, tokens, count, rank)
    for name, weights in (('B', B), ('C', C)):
        axes = '(B, L, K, [G,] N)'
        has_shape(name, weights, axes, batch, tokens, count, *groups, states)
    has_shape('D', D, '(K, C)', count, channels)
    has_shape('dt_weight', dt_weight, '(K, C, R)', count, channels, rank)
    has_shape('dt_bias', dt_bias, '(K, C)', count, channels)
    if routes.numel() and not torch.compiler.is_compiling():
        lowest, highest = int(routes.min()), int(routes.max())
        require(
            lowest >= -1 and highest < tokens,
            'routes must hold token indices from -1 (a zero token) to L - 1 '
            f'= {tokens - 1}, got {lowest} to {highest}',
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
    torch._check(
        output in OUTPUTS,
        lambda: (
            "routed_selective_scan: output must be 'sum', 'routes' or "
            f"'states', got {output!r}"
        ),
    )
    batch, tokens, channels = x.shape
    num_routes = routes.shape[0]
    shape = {
        'sum': (batch, tokens, channels),
        'routes': (batch, num_routes, tokens, channels),
        'states': (batch, num_routes, tokens, channels, A.shape[-1]),
    }[output]
    return x.new_empty(shape, dtype=out_dtype or x.dtype)


def _fake_forward_with_checkpoints(x, dt, A, *inputs):
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    routes = inputs[5]
    chunks = -(-routes.shape[1] // CHECKPOINT_STEPS)
    checkpoints = (len(x), len(routes), chunks, A.shape[2], x.shape[2])
    return (
        _fake_forward(x, dt, A, *inputs),
        x.new_empty(checkpoints, dtype=compute),
    )


def _fake_backward(grad, checkpoints, *inputs):
    return tuple(
        inputs[0].new_empty(0) if t is None else t.new_empty(t.shape)
        for t in inputs[:8]
    )


if native.is_available():
    torch.library.register_fake('mmssm::routed_selective_scan', _fake_forward)
    torch.library.register_fake(
        'mmssm::_routed_selective_scan_forward',
        _fake_forward_with_checkpoints,
    )
    torch.library.register_fake(
        'mmssm::_routed_selective_scan_backward', _fake_backward
    )
    register_gradient('routed_selective_scan', with_checkpoints=True)
