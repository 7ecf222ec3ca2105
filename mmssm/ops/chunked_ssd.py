"""Mamba-2's recurrence in matrix form, chunked, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def chunked_ssd(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    r"""State-space dual scan (`Mamba-2 <https://arxiv.org/abs/2405.21060>`_).

    :math:`h_t = e^{\Delta_t A} h_{t-1} + \Delta_t B_t x_t^\top`,
    :math:`y_t = h_t^\top C_t + D x_t` with one scalar decay per head. Inside
    a chunk the scan is a masked attention-like product; only the chunks'
    last states are passed on sequentially. No exponent is ever positive, so
    long chunks cannot overflow.

    Args:
        x (Tensor): Input (B, T, G, H, P): G groups of H heads of size P.
        delta (Tensor): Step sizes, positive (B, T, G, H).
        A (Tensor): Decay rates, negative (G, H).
        B (Tensor): Input weights (B, T, G, N), shared by a group's heads.
        C (Tensor): Output weights (B, T, G, N).
        D (Tensor, optional): Skip weights (G, H, P).
        chunk (int): Steps per chunk. Defaults to 64.

    Returns:
        Tensor: (B, T, G, H, P).
    """
    steps = x.shape[1]
    pad = -steps % chunk
    # Padding with delta = 0 neither decays the state nor adds to it.
    padded = [
        F.pad(t, [0, 0] * (t.dim() - 2) + [0, pad])
        for t in (x * delta.unsqueeze(-1), delta * A, B, C)
    ]
    values, log_decay, Bs, Cs = (
        t.unflatten(1, (-1, chunk)) for t in padded
    )  # (B, chunks, chunk, G, ...)
    total = log_decay.cumsum(2)
    # decay from the step after s to t, for t >= s: (B, chunks, t, s, G, H)
    between = total.unsqueeze(3) - total.unsqueeze(2)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    between = between.masked_fill(~causal[..., None, None], -torch.inf).exp()
    scores = torch.einsum('bctgn,bcsgn->bctsg', Cs, Bs)
    inside = torch.einsum(
        'bctsg,bctsgh,bcsghp->bctghp', scores, between, values
    )

    to_end = (total[:, :, -1:] - total).exp()
    added = torch.einsum('bcsgn,bcsgh,bcsghp->bcghnp', Bs, to_end, values)
    whole = total[:, :, -1].exp()[..., None, None]
    state = torch.zeros_like(added[:, 0])
    before = []
    for i in range(added.shape[1]):
        before.append(state)
        state = whole[:, i] * state + added[:, i]
    carried = torch.einsum(
        'bctgn,bctgh,bcghnp->bctghp', Cs, total.exp(), torch.stack(before, 1)
    )
    y = (inside + carried).flatten(1, 2)[:, :steps]
    return y if D is None else y + x * D


def chunked_ssd_reference(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
) -> Tensor:
    """:func:`chunked_ssd` step by step."""
    state = x.new_zeros(x.shape[0], *x.shape[2:4], B.shape[-1], x.shape[-1])
    out = []
    for t in range(x.shape[1]):
        decay = torch.exp(delta[:, t] * A)[..., None, None]
        value = x[:, t] * delta[:, t].unsqueeze(-1)
        state = decay * state + torch.einsum('bgn,bghp->bghnp', B[:, t], value)
        out.append(torch.einsum('bgn,bghnp->bghp', C[:, t], state))
    y = torch.stack(out, 1)
    return y if D is None else y + x * D
