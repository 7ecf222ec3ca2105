"""The routed selective scan: a recurrence along K routes over one map."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import (
    compute_dtype,
    require,
    require_flag,
    require_input,
    require_out_dtype,
    require_real,
    require_token_dtype,
    result_dtype,
)
from .gradients import register_gradient

OUTPUTS = ('sum', 'routes', 'states')
CHECKPOINT_STEPS = 64  # kCheckpointSteps in csrc
_OP = 'routed_selective_scan'


class ScanArguments(NamedTuple):
    """The native op's, in the order of its schema."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor | None
    D: Tensor | None
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    routes: Tensor
    delta_softplus: bool = True
    output: str = 'sum'
    out_dtype: torch.dtype | None = None
    keep_checkpoints: bool = False


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
            The state and all math are float32 (float64 for float64 tokens).
        dt (Tensor): Step sizes before the bias: (B, L, K, R) if
            ``dt_weight`` is given, else (B, L, K, C).
        A (Tensor): Decay rates (K, C, N), usually negative.
        B (Tensor): Input weights (B, L, K, N), or (B, L, K, G, N) for G
            groups of neighboring channels.
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
            that of x, but to float32 for float16: sums can pass 65504, its
            largest number.

    A, B, C, D, dt, ``dt_weight`` and ``dt_bias`` may be of any real dtype,
    each of its own.

    Returns:
        Tensor: See ``output``.

    Raises:
        RuntimeError: On shapes, dtypes, devices or indices that do not fit,
            and where a second or a forward-mode derivative is asked for:
            :func:`routed_selective_scan_reference` has those.
    """
    args = ScanArguments(
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
    if native.use_native(x):
        require_flag(_OP, 'delta_softplus', delta_softplus)
        result: Tensor = _native_scan(*args)[0]
        return result
    return run_reference(args)


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
    return run_reference(
        ScanArguments(
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
    )


def run_reference(args: ScanArguments) -> Tensor:
    """The result, by the reference."""
    _check(args)
    # The math must not follow autocast to 16 bits.
    with torch.autocast(args.x.device.type, enabled=False):
        y = _scan_step_by_step(args)
        return y.to(result_dtype(args.x, args.out_dtype))


def _scan_step_by_step(args: ScanArguments) -> Tensor:
    """The reference's math, in float32 or float64."""
    dtype = compute_dtype(args.x)
    x, dt, A, B = (t.to(dtype) for t in args[:4])
    C, D, dt_weight, dt_bias = (
        None if t is None else t.to(dtype) for t in args[4:8]
    )
    routes = args.routes
    batch, length, channels = x.shape
    count, seq_len = routes.shape
    groups = B.shape[3] if B.dim() == 5 else 1
    index = torch.where(routes < 0, length, routes)
    if dt_weight is not None:
        dt = torch.einsum('blkr,kcr->blkc', dt, dt_weight)

    def along_routes(values: Tensor) -> Tensor:
        """(B, L, K, ...) -> (T, B, K, ...), zeros where an index is -1."""
        zero = values.new_zeros(batch, 1, *values.shape[2:])
        padded = torch.cat([values, zero], 1)
        if not count:
            return padded.new_zeros(seq_len, *padded[:, 0].shape)
        picked = [padded[:, index[k], k] for k in range(count)]
        return torch.stack(picked, 2).transpose(0, 1)

    def per_channel(weights: Tensor) -> Tensor:
        """(B, L, K, [G,] N) -> (T, B, K, C, N)."""
        grouped = weights if weights.dim() == 5 else weights.unsqueeze(3)
        spread = grouped.repeat_interleave(channels // groups, dim=3)
        return along_routes(spread)

    u = along_routes(x.unsqueeze(2).expand(-1, -1, count, -1))
    delta = along_routes(dt)
    if dt_bias is not None:
        delta = delta + dt_bias
    if args.delta_softplus:
        # Written out: F.softplus is linear above 20, which is not smooth.
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    Bs = per_channel(B)
    state = x.new_zeros(batch, count, channels, A.shape[-1])
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
    if C is not None:
        results = (results * per_channel(C)).sum(-1)
        if D is not None:
            results = results + D * u
    # (T, B, K, ...) -> back to (B, K, L, ...), the padding cut off.
    results = results.movedim(0, 2)
    to = index.long().view(1, count, seq_len, *[1] * (results.dim() - 3))
    out = results.new_zeros(
        batch, count, length + 1, *results.shape[3:]
    ).scatter_add(2, to.expand_as(results), results)[:, :, :length]
    return out.sum(1) if args.output == 'sum' else out


def _check(args: ScanArguments) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""
    x, dt, A, B, C, D, dt_weight, dt_bias, routes = args[:9]
    require_flag(_OP, 'delta_softplus', args.delta_softplus)
    _check_output(args)
    _check_dtypes(args)
    _check_dimensions(args)
    (batch, length, channels), count = x.shape, routes.shape[0]
    d_state, groups = A.shape[2], B.shape[3] if B.dim() == 5 else 1
    dt_rank = channels if dt_weight is None else dt_weight.shape[2]
    require(
        _OP,
        groups > 0 and channels % groups == 0,
        f'{channels} channels do not divide into {groups} groups',
    )
    require(_OP, d_state > 0, 'A needs at least one state')
    require(
        _OP,
        dt_weight is None or dt_rank > 0,
        'dt_weight needs at least one column',
    )

    def check(name: str, tensor: Tensor | None, axes: str, *want: int) -> None:
        require_input(_OP, name, tensor, x, axes, *want)

    weights = (batch, length, count, *B.shape[3:-1], d_state)
    check('A', A, '(K, C, N)', count, channels, d_state)
    check('B', B, '(B, L, K, [G,] N)', *weights)
    check('C', C, '(B, L, K, [G,] N)', *weights)
    axes = '(B, L, K, C)' if dt_weight is None else '(B, L, K, R)'
    check('dt', dt, axes, batch, length, count, dt_rank)
    check('D', D, '(K, C)', count, channels)
    check('dt_weight', dt_weight, '(K, C, R)', count, channels, dt_rank)
    check('dt_bias', dt_bias, '(K, C)', count, channels)
    check('routes', routes, '(K, T)', *routes.shape)
    if routes.numel() and not torch.compiler.is_compiling():
        lowest, highest = int(routes.min()), int(routes.max())
        require(
            _OP,
            lowest >= -1 and highest < length,
            'routes must hold token indices from -1 (a zero token) to L - 1 '
            f'= {length - 1}, got {lowest} to {highest}',
        )


def _check_dtypes(args: ScanArguments) -> None:
    """What the native op rejects, too: it does not run while tracing."""
    require_out_dtype(_OP, args.out_dtype)
    require_token_dtype(_OP, args.x)
    for name, tensor in zip(ScanArguments._fields[1:8], args[1:8]):
        require_real(_OP, name, tensor)
    require(
        _OP,
        args.routes.dtype in (torch.int32, torch.int64),
        f'routes must be int32 or int64, got {args.routes.dtype}',
    )


def _check_dimensions(args: ScanArguments) -> None:
    """How many they are, so that the sizes can be read."""
    x, _, A, B, _, _, dt_weight, _, routes = args[:9]
    for name, tensor, axes, counts in (
        ('x', x, '(B, L, C)', (3,)),
        ('routes', routes, '(K, T)', (2,)),
        ('A', A, '(K, C, N)', (3,)),
        ('B', B, '(B, L, K, N) or (B, L, K, G, N)', (4, 5)),
        ('dt_weight', dt_weight, '(K, C, R)', (3,)),
    ):
        if tensor is not None and tensor.dim() not in counts:
            raise RuntimeError(
                f'{_OP}: {name} must be {axes}, got {tuple(tensor.shape)}'
            )


def _check_output(args: ScanArguments) -> None:
    require(
        _OP,
        args.output in OUTPUTS,
        f"output must be 'sum', 'routes' or 'states', got {args.output!r}",
    )
    states = args.output == 'states'
    require(
        _OP,
        (args.C is None) == states,
        "output='states' takes no C, every other output needs it",
    )
    require(_OP, args.D is None or not states, "output='states' takes no D")


def _fake(*given: Any) -> tuple[Tensor, Tensor]:
    """The shapes that tracing needs."""
    args = ScanArguments(*given)
    _check_output(args)
    _check_dtypes(args)
    _check_dimensions(args)
    x = args.x
    batch, length, channels = x.shape
    (count, seq_len), d_state = args.routes.shape, args.A.shape[-1]
    shape = {
        'sum': (batch, length, channels),
        'routes': (batch, count, length, channels),
        'states': (batch, count, length, channels, d_state),
    }[args.output]
    checkpoints: tuple[int, ...] = (0,)
    if args.keep_checkpoints:
        chunks = -(-seq_len // CHECKPOINT_STEPS)
        checkpoints = (batch, count, chunks, d_state, channels)
    return (
        x.new_empty(shape, dtype=result_dtype(x, args.out_dtype)),
        x.new_empty(checkpoints, dtype=compute_dtype(x)),
    )


if native.is_available():
    torch.library.register_fake('mmssm::routed_selective_scan', _fake)
    _native_scan = register_gradient('routed_selective_scan')
