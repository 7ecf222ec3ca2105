"""The 1-D selective scan, with mamba-ssm's arguments and meaning."""

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import require_shape, require_token_dtype
from .routed_selective_scan import (
    routed_selective_scan,
    routed_selective_scan_reference,
)

_OP = 'selective_scan'


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    r"""Selective scan of a sequence (`Mamba
    <https://arxiv.org/abs/2312.00752>`_), as mamba-ssm's
    ``selective_scan_fn``.

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \quad
        y_t = C_t \cdot h_t + D u_t

    Args:
        u (Tensor): Input (B, D, L).
        delta (Tensor): Step sizes (B, D, L).
        A (Tensor): Decay rates (D, N).
        B (Tensor): Input weights (B, N, L) or (B, G, N, L), G groups of
            neighboring channels.
        C (Tensor): Output weights, shaped like B.
        D (Tensor, optional): Skip weights (D).
        delta_bias (Tensor, optional): Added to delta (D).
        delta_softplus (bool): Whether delta passes softplus after the bias.
            Defaults to False.

    Returns:
        Tensor: (B, D, L), dtype of u. The state is kept in float32 (float64
        for a float64 u).

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit, and where
            a second or a forward-mode derivative is asked for:
            :func:`selective_scan_reference` has those.
    """
    return _along_one_route(
        routed_selective_scan,
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        delta_softplus,
    )


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """:func:`selective_scan` step by step in plain PyTorch."""
    return _along_one_route(
        routed_selective_scan_reference,
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        delta_softplus,
    )


def _along_one_route(
    scan: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """The 1-D scan as a routed scan along the one route 0, 1, 2, ..."""
    _check(u, delta, A, B, C, D, delta_bias)
    steps = torch.arange(u.shape[2], dtype=torch.int32, device=u.device)
    y = scan(
        u.transpose(1, 2),
        delta.transpose(1, 2).unsqueeze(2),
        A.unsqueeze(0),
        _token_major(B),
        _token_major(C),
        None if D is None else D.unsqueeze(0),
        routes=steps.unsqueeze(0),
        dt_bias=None if delta_bias is None else delta_bias.unsqueeze(0),
        delta_softplus=delta_softplus,
        out_dtype=u.dtype,
    )
    return y.transpose(1, 2)


def _token_major(weights: Tensor) -> Tensor:
    """(B, [G,] N, L) -> (B, L, 1, G, N)."""
    grouped = weights if weights.dim() == 4 else weights.unsqueeze(1)
    return grouped.permute(0, 3, 1, 2).unsqueeze(2)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """So that an error speaks of these arguments, not of the routed scan's."""
    if u.dim() != 3:
        raise RuntimeError(f'{_OP}: u must be (B, D, L), got {tuple(u.shape)}')
    if A.dim() != 2 or not A.shape[1]:
        raise RuntimeError(
            f'{_OP}: A must be (D, N), with at least one state, got '
            f'{tuple(A.shape)}'
        )
    require_token_dtype(_OP, u, 'u')
    (batch, channels, length), d_state = u.shape, A.shape[1]
    require_shape(_OP, 'delta', delta, "(B, D, L), u's", *u.shape)
    require_shape(_OP, 'A', A, '(D, N)', channels, d_state)
    for name, weights in (('B', B), ('C', C)):
        if weights.dim() not in (3, 4):
            raise RuntimeError(
                f'{_OP}: {name} must be (B, N, L) or (B, G, N, L), got '
                f'{tuple(weights.shape)}'
            )
    sizes = (batch, *B.shape[1:-2], d_state, length)
    require_shape(_OP, 'B', B, '(B, [G,] N, L)', *sizes)
    require_shape(_OP, 'C', C, '(B, [G,] N, L)', *sizes)
    groups = B.shape[1] if B.dim() == 4 else 1
    if not groups or channels % groups:
        raise RuntimeError(
            f'{_OP}: {channels} channels do not divide into {groups} groups'
        )
    require_shape(_OP, 'D', D, '(D)', channels)
    require_shape(_OP, 'delta_bias', delta_bias, '(D)', channels)
    others = dict(delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    for name, tensor in others.items():
        if tensor is not None and tensor.device != u.device:
            raise RuntimeError(
                f'{_OP}: {name} is on {tensor.device} but u is on {u.device}; '
                'move them to one device'
            )
