"""The 1-D selective scan, with mamba-ssm's arguments and meaning."""

import torch
from torch import Tensor

from . import native
from .routed_scan import routed_selective_scan_reference


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
    if native.use_native(u):
        return torch.ops.mmssm.selective_scan(
            u, delta, A, B, C, D, delta_bias, delta_softplus
        )
    return selective_scan_reference(
        u, delta, A, B, C, D, delta_bias, delta_softplus
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

    def token_major(weights: Tensor) -> Tensor:
        """(B, [G,] N, L) -> (B, L, 1, G, N)."""
        grouped = weights if weights.dim() == 4 else weights.unsqueeze(1)
        return grouped.permute(0, 3, 1, 2).unsqueeze(2)

    y = routed_selective_scan_reference(
        u.transpose(1, 2),
        delta.transpose(1, 2).unsqueeze(2),
        A.unsqueeze(0),
        token_major(B),
        token_major(C),
        None if D is None else D.unsqueeze(0),
        routes=torch.arange(u.shape[2], device=u.device).unsqueeze(0),
        dt_bias=None if delta_bias is None else delta_bias.unsqueeze(0),
        delta_softplus=delta_softplus,
    )
    return y.transpose(1, 2)
