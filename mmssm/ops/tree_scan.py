"""The tree scan: a selective recurrence over a rooted tree, there and back."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.jit._trace import is_tracing
from torch.utils._python_dispatch import _get_current_dispatch_mode

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

_OP = 'tree_scan'


class _Arguments(NamedTuple):
    """The native op's, in the order of its schema."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    order: Tensor
    delta_softplus: bool = True
    out_dtype: torch.dtype | None = None


def tree_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    *,
    parents: Tensor,
    dt_weight: Tensor | None = None,
    dt_bias: Tensor | None = None,
    delta_softplus: bool = True,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    r"""A scan over a tree of tokens: the state of each sums all tokens.

    .. math::
        \Delta_i &= \mathrm{softplus}(W\, dt_i + bias) \\
        w_i &= \exp(\Delta_i A), \quad v_i = \Delta_i B_i\, x_i \\
        U_i &= v_i + \sum_{c\ \mathrm{child\ of}\ i} w_c\, U_c \\
        h_{root} &= U_{root}, \quad
        h_i = (1 - w_i^2)\, U_i + w_i\, h_{parent(i)}

    the tree scan of `GrootV <https://arxiv.org/abs/2406.02395>`_, one state
    per channel: :math:`w_i` is the transition over the edge between i and its
    parent, and :math:`h_i` the sum of all tokens' values :math:`v_j`, each
    times the transitions on the path from j to i. One pass from the leaves to
    the root and one back give all of them. The tree is one for the whole
    batch.

    Args:
        x (Tensor): Tokens (B, L, C), float64, float32, bfloat16 or float16.
            All math are float32 (float64 for float64 tokens).
        dt (Tensor): Step sizes before the bias: (B, L, R) if ``dt_weight`` is
            given, else (B, L, C).
        A (Tensor): Decay rates (C,), usually negative.
        B (Tensor): Input weights (B, L).
        parents (Tensor): Index of each token's parent (L,), int32 or int64,
            -1 for the root; or what :func:`tree_order` makes of it, (2, L).
            With the parents, each call looks the order up on the CPU, and so
            waits for a GPU.
        dt_weight (Tensor, optional): Low-rank step projection (C, R).
        dt_bias (Tensor, optional): Step bias (C,).
        delta_softplus (bool): Whether step sizes pass softplus. Defaults to
            True.
        out_dtype (torch.dtype, optional): The result's dtype. Defaults to
            that of x, but to float32 for float16: sums can pass 65504, its
            largest number.

    A, B, dt, ``dt_weight`` and ``dt_bias`` may be of any real dtype, each of
    its own.

    Returns:
        Tensor: The states (B, L, C).

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit, on parents
            that are no rooted tree, and where a second or a forward-mode
            derivative is asked for: :func:`tree_scan_reference` has those.
    """
    args = _Arguments(
        x,
        dt,
        A,
        B,
        dt_weight,
        dt_bias,
        parents if parents.dim() == 2 else tree_order(parents),
        delta_softplus,
        out_dtype,
    )
    if native.use_native(x):
        require_flag(_OP, 'delta_softplus', delta_softplus)
        states: Tensor = _native_scan(*args)
        return states
    return _reference(args)


def tree_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    *,
    parents: Tensor,
    dt_weight: Tensor | None = None,
    dt_bias: Tensor | None = None,
    delta_softplus: bool = True,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`tree_scan` in plain PyTorch, token by token.

    Arguments and result are the same; it is slow, differentiable to any
    order, and what the native op is tested against.
    """
    args = _Arguments(
        x,
        dt,
        A,
        B,
        dt_weight,
        dt_bias,
        parents if parents.dim() == 2 else tree_order(parents),
        delta_softplus,
        out_dtype,
    )
    return _reference(args)


def _reference(args: _Arguments) -> Tensor:
    _check(args)
    x, dtype = args.x, compute_dtype(args.x)
    # The math must not follow autocast to 16 bits.
    with torch.autocast(x.device.type, enabled=False):
        delta = args.dt.to(dtype)
        if args.dt_weight is not None:
            delta = delta @ args.dt_weight.to(dtype).T
        if args.dt_bias is not None:
            delta = delta + args.dt_bias.to(dtype)
        if args.delta_softplus:
            # Written out: F.softplus is linear above 20, which is not smooth.
            delta = torch.logaddexp(delta, torch.zeros_like(delta))
        w = torch.exp(delta * args.A.to(dtype))
        v = delta * args.B.to(dtype).unsqueeze(-1) * x.to(dtype)
        h = _pass_twice(v, w, args.order)
        return h.to(result_dtype(x, args.out_dtype))


def _pass_twice(v: Tensor, w: Tensor, order: Tensor) -> Tensor:
    """From values and transitions (B, L, C) to states (B, L, C)."""
    tokens, parents = order.tolist()
    U, edge = list(v[:, tokens].unbind(1)), w[:, tokens].unbind(1)
    for step in range(len(tokens) - 1, 0, -1):
        parent = parents[step]
        U[parent] = U[parent] + edge[step] * U[step]
    h = U[:1]
    for step in range(1, len(tokens)):
        own = (1 - edge[step] ** 2) * U[step]
        h.append(own + edge[step] * h[parents[step]])
    back = order[0].long().argsort()
    return torch.stack(h, 1)[:, back]


def tree_order(parents: Tensor) -> Tensor:
    """The order in which a tree is passed: depth first, parents before.

    A chain of tokens without branches stays together, so that a pass along it
    need not leave the processor's registers. The orders of the last 64 trees
    are kept, by their content.

    Args:
        parents (Tensor): Index of each token's parent (L,), int32 or int64,
            -1 for the root.

    Returns:
        Tensor: (2, L) int32 on the same device: the token of each step, and
        the step of its parent, -1 for the root.

    Raises:
        RuntimeError: If it is no tree: no root or several, an index that is
            no token's, or a cycle.
    """
    if (
        torch.compiler.is_compiling()
        or is_tracing()
        or parents.is_meta
        or torch._C._are_functorch_transforms_active()
        or _get_current_dispatch_mode()
    ):
        order: Tensor = torch.ops.mmssm.tree_order(parents)
        return order
    return _find_order(parents)


def _find_order(parents: Tensor) -> Tensor:
    if parents.dim() != 1 or parents.dtype not in (torch.int32, torch.int64):
        raise RuntimeError(
            'tree_scan: parents must be (L,) int32 or int64, got '
            f'{tuple(parents.shape)} {parents.dtype}'
        )
    order = find_order(parents.cpu().numpy())
    # Inference mode's tensors could not be used outside of it.
    with torch.inference_mode(False):
        return torch.tensor(order, device=parents.device)


# An op, so that tracing sees one node and no values, and torch.func unwraps
# its argument.
@torch.library.custom_op('mmssm::tree_order', mutates_args=())
def _order_op(parents: Tensor) -> Tensor:
    return _find_order(parents)


@_order_op.register_fake
def _(parents: Tensor) -> Tensor:
    return parents.new_empty((2, *parents.shape), dtype=torch.int32)


def find_order(parents: np.ndarray) -> np.ndarray:
    """:func:`tree_order` of an array; the result is not to be changed."""
    return _depth_first(parents.astype(np.int64).tobytes())


# By content: a compiled model has the same tree in ever new tensors.
@lru_cache(maxsize=64)
def _depth_first(indices: bytes) -> np.ndarray:
    """(2, L) int32, see :func:`tree_order`, of int64 parents."""
    parents = np.frombuffer(indices, np.int64)
    tokens = len(parents)
    roots = np.flatnonzero(parents == -1)
    if len(roots) != 1:
        raise RuntimeError(
            'tree_scan: parents must have exactly one root, marked by -1, got '
            f'{len(roots)} in {tokens} tokens'
        )
    lowest, highest = parents.min(), parents.max()
    if lowest < -1 or highest >= tokens:
        raise RuntimeError(
            'tree_scan: parents must be token indices from 0 to L - 1 = '
            f'{tokens - 1}, and -1 for the root, got {lowest} to {highest}'
        )
    by_parent = np.argsort(parents, kind='stable')
    # Where the children of each token begin in it, after the root.
    begin = np.searchsorted(parents[by_parent], np.arange(tokens + 1)).tolist()
    children = by_parent[::-1].tolist()
    order, left = [], roots.tolist()
    while left:
        token = left.pop()
        order.append(token)
        left += children[tokens - begin[token + 1] : tokens - begin[token]]
    if len(order) < tokens:
        lost = np.setdiff1d(np.arange(tokens), order)
        raise RuntimeError(
            f'tree_scan: parents are no tree: {len(lost)} tokens, {lost[0]} '
            'the first, lead into a cycle, not to the root'
        )
    step = np.empty(tokens + 1, np.int32)
    step[order] = np.arange(tokens)
    step[-1] = -1
    return np.stack([order, step[parents[order]]]).astype(np.int32)


def _check(args: _Arguments) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""
    x, dt_weight = args.x, args.dt_weight
    require_flag(_OP, 'delta_softplus', args.delta_softplus)
    _check_tokens(args)
    batch, length, channels = x.shape

    def check(name: str, tensor: Tensor | None, axes: str, *want: int) -> None:
        require_input(_OP, name, tensor, x, axes, *want)

    check('parents', args.order[0], '(L)', length)
    check('A', args.A, '(C)', channels)
    check('B', args.B, '(B, L)', batch, length)
    if dt_weight is None:
        check('dt', args.dt, '(B, L, C)', batch, length, channels)
    else:
        dt_rank = dt_weight.shape[-1] if dt_weight.dim() else 0
        check('dt_weight', dt_weight, '(C, R)', channels, dt_rank)
        require(_OP, dt_rank > 0, 'dt_weight needs at least one column')
        check('dt', args.dt, '(B, L, R)', batch, length, dt_rank)
    check('dt_bias', args.dt_bias, '(C)', channels)


def _check_tokens(args: _Arguments) -> None:
    """What the native op rejects, too: it does not run while tracing."""
    x = args.x
    require(_OP, x.dim() == 3, f'x must be (B, L, C), got {tuple(x.shape)}')
    require_token_dtype(_OP, x)
    require_out_dtype(_OP, args.out_dtype)
    for name, tensor in zip(_Arguments._fields[1:6], args[1:6]):
        require_real(_OP, name, tensor)


def _fake(*given: Any) -> Tensor:
    """The shapes that tracing needs."""
    args = _Arguments(*given)
    x = args.x
    _check_tokens(args)
    return x.new_empty(x.shape, dtype=result_dtype(x, args.out_dtype))


if native.is_available():
    torch.library.register_fake('mmssm::tree_scan', _fake)
    _native_scan = register_gradient('tree_scan')
