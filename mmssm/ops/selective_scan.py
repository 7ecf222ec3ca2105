"""The 1-D selective scan, with mamba-ssm's arguments and meaning."""

from typing import Literal, NamedTuple, NoReturn, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .checks import (
    compute_dtype,
    require_flag,
    require_input,
    require_token_dtype,
)
from .gradients import native_call
from .routed_selective_scan import (
    CHECKPOINT_STEPS,
    ScanArguments,
    run_reference,
)

_OP = 'selective_scan'
_BY_NAME = (
    '; pass z, delta_bias, delta_softplus and return_last_state by name: '
    "mamba-ssm's order, with z before delta_bias, is not taken"
)


class _Arguments(NamedTuple):
    """The function's."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    z: Tensor | None
    return_last_state: bool


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    z: Tensor | None = None,
    return_last_state: Literal[False] = False,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    z: Tensor | None = None,
    return_last_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *misplaced: NoReturn,
    z: Tensor | None = None,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Selective scan of a sequence (`Mamba
    <https://arxiv.org/abs/2312.00752>`_), as mamba-ssm's
    ``selective_scan_fn``.

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \quad
        y_t = (C_t \cdot h_t + D u_t)\, \mathrm{silu}(z_t)

    Unlike there, z is passed by name only. A, B, C, D, delta, delta_bias and z
    may be of any real dtype, each of its own.

    Args:
        u (Tensor): Input (B, D, L), float64, float32, bfloat16 or float16.
        delta (Tensor): Step sizes (B, D, L).
        A (Tensor): Decay rates (D, N).
        B (Tensor): Input weights (B, N, L) or (B, G, N, L), G groups of
            neighboring channels; or (D, N), the same at all steps. With the
            latter each channel is a group of its own, which is slow.
        C (Tensor): Output weights, in one of the same shapes.
        D (Tensor, optional): Skip weights (D).
        delta_bias (Tensor, optional): Added to delta (D).
        delta_softplus (bool): Whether delta passes softplus after the bias.
            Defaults to False.
        misplaced: Must be none.
        z (Tensor, optional): Gate (B, D, L); without it y is not gated.
        return_last_state (bool): Whether to return the state after the last
            step, too. The scan then takes up to 64 steps more. Defaults to
            False.

    Returns:
        Tensor | tuple[Tensor, Tensor]: y (B, D, L), dtype of u. The state and
        all math are float32 (float64 for a float64 u); y is rounded once. With
        ``return_last_state`` also the last state (B, D, N), float32 or
        float64, zero if L is 0; as in mamba-ssm, it has no gradient.

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit, on
            arguments in mamba-ssm's order, and where a second or a
            forward-mode derivative is asked for:
            :func:`selective_scan_reference` has those.
    """
    args = _Arguments(
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        delta_softplus,
        z,
        return_last_state,
    )
    _check(args, misplaced)
    if not native.use_native(u):
        return _reference(args)
    y, checkpoints = _native_scan(*_along_one_route(args))
    y = _gated(args, y)
    # A copy: backward reads the checkpoints.
    return (y, _last(checkpoints.mT)) if return_last_state else y


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *misplaced: NoReturn,
    z: Tensor | None = None,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`selective_scan` step by step in plain PyTorch.

    Arguments and result are the same; it is slow, differentiable to any
    order, and what the native op is tested against.
    """
    args = _Arguments(
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        delta_softplus,
        z,
        return_last_state,
    )
    _check(args, misplaced)
    return _reference(args)


def _reference(args: _Arguments) -> Tensor | tuple[Tensor, Tensor]:
    routed = _along_one_route(args._replace(return_last_state=False))
    y = _gated(args, run_reference(routed))
    if not args.return_last_state:
        return y
    with torch.no_grad():
        states = run_reference(
            routed._replace(
                C=None,
                D=None,
                output='states',
                out_dtype=compute_dtype(args.u),
            )
        )
    # The state before the first step is zero.
    return y, _last(F.pad(states, (0, 0, 0, 0, 1, 0)))


def _along_one_route(args: _Arguments) -> ScanArguments:
    """The 1-D scan as a routed scan along the one route 0, 1, 2, ...

    For the last state the route is longer, so that its last state checkpoint
    is that state: zero tokens come before, to a multiple of
    ``CHECKPOINT_STEPS`` steps, and one after.
    """
    u, delta, delta_bias = args.u, args.delta, args.delta_bias
    first = 0
    if args.return_last_state:
        first = -(-u.shape[2] % CHECKPOINT_STEPS)
        if delta_bias is not None and not args.delta_softplus:
            # A zero token's step is the bias, which may be negative, and its
            # decay too large to be multiplied by the state, zero.
            dtype = compute_dtype(u)
            delta = delta.to(dtype) + delta_bias.to(dtype).unsqueeze(-1)
            delta_bias = None
    steps = torch.arange(first, u.shape[2], dtype=torch.int32, device=u.device)
    if args.return_last_state:
        steps = F.pad(steps.clamp(min=-1), (0, 1), value=-1)
    return ScanArguments(
        x=u.transpose(1, 2),
        dt=delta.transpose(1, 2).unsqueeze(2),
        A=args.A.unsqueeze(0),
        B=_token_major(args.B, args),
        C=_token_major(args.C, args),
        D=None if args.D is None else args.D.unsqueeze(0),
        dt_weight=None,
        dt_bias=None if delta_bias is None else delta_bias.unsqueeze(0),
        routes=steps.unsqueeze(0),
        delta_softplus=args.delta_softplus,
        out_dtype=u.dtype if args.z is None else compute_dtype(u),
        keep_checkpoints=args.return_last_state,
    )


def _token_major(weights: Tensor, args: _Arguments) -> Tensor:
    """(B, [G,] N, L) or (D, N) -> (B, L, 1, G, N).

    If B or C is the same at all steps, both have a group for each channel.
    """
    batch, channels, length = args.u.shape
    varying = args.B.dim() > 2 and args.C.dim() > 2
    if not varying:
        # The sum of the gradients of all tokens or channels is rounded once.
        weights = weights.to(compute_dtype(args.u))
    if weights.dim() == 2:
        return weights.expand(batch, length, 1, -1, -1)
    grouped = weights if weights.dim() == 4 else weights.unsqueeze(1)
    grouped = grouped.permute(0, 3, 1, 2).unsqueeze(2)
    if varying:
        return grouped
    shared = grouped.unsqueeze(4)
    per_group = channels // grouped.shape[3]
    return shared.expand(-1, -1, -1, -1, per_group, -1).flatten(3, 4)


def _gated(args: _Arguments, y: Tensor) -> Tensor:
    """From (B, L, D) to the result (B, D, L)."""
    y = y.transpose(1, 2)
    if args.z is None:
        return y
    return (y * F.silu(args.z.to(y.dtype))).to(args.u.dtype)


def _last(states: Tensor) -> Tensor:
    """A copy of the last of (B, 1, steps, D, N)."""
    return states[:, 0, -1].clone(memory_format=torch.contiguous_format)


def _check(args: _Arguments, misplaced: tuple[object, ...]) -> None:
    """So that an error speaks of these arguments, not of the routed scan's."""
    u, A, delta_bias = args.u, args.A, args.delta_bias
    if misplaced:
        raise RuntimeError(
            f'{_OP}: takes 8 arguments by position, got {8 + len(misplaced)}'
            + _BY_NAME
        )
    for name in ('delta_softplus', 'return_last_state'):
        require_flag(_OP, name, getattr(args, name), _BY_NAME)
    if u.dim() != 3:
        raise RuntimeError(f'{_OP}: u must be (B, D, L), got {tuple(u.shape)}')
    require_token_dtype(_OP, u, 'u')
    if delta_bias is not None and delta_bias.dim() == 3:
        raise RuntimeError(
            f'{_OP}: delta_bias must have shape (D), got '
            f'{tuple(delta_bias.shape)}, which is probably z{_BY_NAME}'
        )
    if A.dim() != 2 or not A.shape[1]:
        raise RuntimeError(
            f'{_OP}: A must be (D, N), with at least one state, got '
            f'{tuple(A.shape)}'
        )

    def check(name: str, tensor: Tensor | None, axes: str, *want: int) -> None:
        require_input(_OP, name, tensor, u, axes, *want, tokens_name='u')

    channels, d_state = u.shape[1], A.shape[1]
    check('delta', args.delta, "(B, D, L), u's", *u.shape)
    check('A', A, '(D, N)', channels, d_state)
    check('D', args.D, '(D)', channels)
    check('delta_bias', delta_bias, '(D)', channels)
    check('z', args.z, "(B, D, L), u's", *u.shape)
    _check_weights(args)


def _check_weights(args: _Arguments) -> None:
    (batch, channels, length), d_state = args.u.shape, args.A.shape[1]
    groups = None
    for name, weights in (('B', args.B), ('C', args.C)):
        own, axes = channels, '(D, N)'
        sizes: tuple[int, ...] = (channels, d_state)
        if weights.dim() in (3, 4):
            own = weights.shape[1] if weights.dim() == 4 else 1
            groups = own if groups is None else groups
            with_groups = weights.dim() == 4 or groups > 1
            sizes = (batch, *[groups] * with_groups, d_state, length)
            axes = '(B, [G,] N, L)'
        elif weights.dim() != 2:
            raise RuntimeError(
                f'{_OP}: {name} must be (B, N, L), (B, G, N, L) or (D, N), '
                f'got {tuple(weights.shape)}'
            )
        require_input(
            _OP, name, weights, args.u, axes, *sizes, tokens_name='u'
        )
        if not own or channels % own:
            raise RuntimeError(
                f'{_OP}: {channels} channels do not divide into {own} groups'
            )


if native.is_available():
    _native_scan = native_call('routed_selective_scan', _OP)
