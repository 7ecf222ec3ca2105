"""The 1-D selective scan, with mamba-ssm's arguments and meaning."""

from collections.abc import Callable

import torch
from torch import Tensor

from .routed_selective_scan import (
    routed_selective_scan,
    routed_selective_scan_reference,
)


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
            neighbouring channels.
        C (Tensor): Output weights, shaped like B.
        D (Tensor, optional): Skip weights (D).
        delta_bias (Tensor, optional): Added to delta (D).
        delta_softplus (bool): Whether delta passes softplus after the bias.
            Defaults to False.

    Returns:
        Tensor: (B, D, L), dtype of u. The state is kept in float32 (float64
        for a float64 u).

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit.
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
    """The 1-D scan as a routed scan along 0, 1, 2, ..."""
    _require(u.dim() == 3, 'u must be (B, D, L)', u)
    _require(
        delta.shape == u.shape, f"delta must have u's shape {u.shape}", delta
    )
    _require(A.dim() == 2, 'A must be (D, N)', A)
    steps = torch.arange(u.shape[2], dtype=torch.int32, device=u.device)
    y = scan(
        u.transpose(1, 2),
        delta.transpose(1, 2).unsqueeze(2),
        A.unsqueeze(0),
        _token_major('B', B),
        _token_major('C', C),
        None if D is None else D.unsqueeze(0),
        routes=steps.unsqueeze(0),
        dt_bias=None if delta_bias is None else delta_bias.unsqueeze(0),
        delta_softplus=delta_softplus,
        out_dtype=u.dtype,
    )
    return y.transpose(1, 2)


def _token_major(name: str, weights: Tensor) -> Tensor:
    """(B, [G,] N, L) -> (B, L, 1, G, N)."""
    _require(
        weights.dim() in (3, 4),
        f'{name} must be (B, N, L) or (B, G, N, L)',
        weights,
    )
    grouped = weights if weights.dim() == 4 else weights.unsqueeze(1)
    return grouped.permute(0, 3, 1, 2).unsqueeze(2)


def _require(condition: bool, message: str, got: Tensor) -> None:
    if not condition:
        raise RuntimeError(f'selective_scan: {message}, got {list(got.shape)}')
