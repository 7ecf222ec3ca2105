"""The tree scan: a selective recurrence over a rooted tree, there and back."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.weak import WeakTensorKeyDictionary

from . import native
from .gradients import register_gradient

_TOKEN_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


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
    r"""States of a scan over a tree of tokens, of all tokens at each.

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
            All maths are float32 (float64 for float64 tokens).
        dt (Tensor): Step sizes before the bias: (B, L, R) if ``dt_weight`` is
            given, else (B, L, C).
        A (Tensor): Decay rates (C,), usually negative.
        B (Tensor): Input weights (B, L).
        parents (Tensor): Index of each token's parent (L,), int32 or int64,
            -1 for the root; or what :func:`tree_order` makes of it, (2, L),
            which spares a compiled model to do so in each call.
        dt_weight (Tensor, optional): Low-rank step projection (C, R).
        dt_bias (Tensor, optional): Step bias (C,).
        delta_softplus (bool): Whether step sizes pass softplus. Defaults to
            True.
        out_dtype (torch.dtype, optional): The result's dtype. Defaults to
            that of x. float32 avoids float16's overflow at 65504.

    Returns:
        Tensor: The states (B, L, C).

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit, on parents
            that are no rooted tree, and where a second or a forward-mode
            derivative is asked for: :func:`tree_scan_reference` has those.
    """
    if not native.use_native(x):
        return tree_scan_reference(
            x,
            dt,
            A,
            B,
            parents=parents,
            dt_weight=dt_weight,
            dt_bias=dt_bias,
            delta_softplus=delta_softplus,
            out_dtype=out_dtype,
        )
    return torch.ops.mmssm.tree_scan(
        x,
        dt,
        A,
        B,
        dt_weight,
        dt_bias,
        _as_order(parents),
        delta_softplus,
        out_dtype,
    )


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
    order = _as_order(parents)
    _check(x, dt, A, B, order, dt_weight, dt_bias, out_dtype)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    # The maths must not follow autocast to 16 bits.
    with torch.autocast(x.device.type, enabled=False):
        delta = dt.to(compute)
        if dt_weight is not None:
            delta = delta @ dt_weight.to(compute).T
        if dt_bias is not None:
            delta = delta + dt_bias.to(compute)
        if delta_softplus:
            # Written out: F.softplus is linear above 20, which is not smooth.
            delta = torch.logaddexp(delta, torch.zeros_like(delta))
        w = torch.exp(delta * A.to(compute))
        v = delta * B.to(compute).unsqueeze(-1) * x.to(compute)
        return _pass_twice(v, w, order).to(out_dtype or x.dtype)


def _pass_twice(v: Tensor, w: Tensor, order: Tensor) -> Tensor:
    """From values and transitions (B, L, C) to states (B, L, C)."""
    tokens, parents = order.tolist()
    U, w = list(v[:, tokens].unbind(1)), w[:, tokens].unbind(1)
    for step in range(len(tokens) - 1, 0, -1):
        parent = parents[step]
        U[parent] = U[parent] + w[step] * U[step]
    h = U[:1]
    for step in range(1, len(tokens)):
        own = (1 - w[step] ** 2) * U[step]
        h.append(own + w[step] * h[parents[step]])
    back = order[0].long().argsort()
    return torch.stack(h, 1)[:, back]


def tree_order(parents: Tensor) -> Tensor:
    """The order in which a tree is passed: depth first, parents before.

    It is computed once for each tensor, on the CPU, and kept as long as the
    tensor is and stays the same. A chain of tokens without branches stays
    together, so that a pass along it need not leave the processor's registers.

    Args:
        parents (Tensor): Index of each token's parent (L,), int32 or int64,
            -1 for the root. On a GPU it may be changed in place, but not
            through ``.data`` or another library that shares its memory: that
            is not seen.

    Returns:
        Tensor: (2, L) int32 on the same device, not to be changed: the token
        of each step, and the step of its parent, -1 for the root.

    Raises:
        RuntimeError: If it is no tree: no root or several, an index that is
            no token's, or a cycle.
    """
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or parents.is_meta
        or _get_current_dispatch_mode()
    ):
        return torch.ops.mmssm.tree_order(parents)
    if parents.is_inference():  # does not tell whether it was changed
        return _find_order(parents)
    known = _KNOWN_ORDERS.get(parents)
    if known is None or not known.is_of(parents):
        known = _KNOWN_ORDERS[parents] = _KnownOrder.find(parents)
    return known.order


class _KnownOrder(NamedTuple):
    """An order and the state of the parents that it was found for."""

    order: Tensor
    version: int
    content: Tensor | None

    @classmethod
    def find(cls, parents: Tensor) -> '_KnownOrder':
        # Reading a GPU's memory again would cost more than it is worth.
        content = parents.clone() if parents.is_cpu else None
        return cls(_find_order(parents), parents._version, content)

    def is_of(self, parents: Tensor) -> bool:
        if self.content is None:
            return self.version == parents._version
        return torch.equal(self.content, parents)


_KNOWN_ORDERS = WeakTensorKeyDictionary()


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


# An op, so that tracing sees one node and no values.
@torch.library.custom_op('mmssm::tree_order', mutates_args=())
def _order_op(parents: Tensor) -> Tensor:
    return _find_order(parents)


@_order_op.register_fake
def _(parents):
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


def _as_order(parents: Tensor) -> Tensor:
    return parents if parents.dim() == 2 else tree_order(parents)


def _check(x, dt, A, B, order, dt_weight, dt_bias, out_dtype) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""

    def has_shape(
        name: str, tensor: Tensor | None, axes: str, *want: int
    ) -> None:
        if tensor is not None and tensor.shape != want:
            raise RuntimeError(
                f'tree_scan: {name} must have shape {axes} = {want}, got '
                f'{tuple(tensor.shape)}'
            )

    if x.dim() != 3:
        raise RuntimeError(
            f'tree_scan: x must be (B, L, C), got {tuple(x.shape)}'
        )
    if x.dtype not in _TOKEN_DTYPES:
        raise RuntimeError(
            'tree_scan: x must be float64, float32, float16 or bfloat16, got '
            f'{x.dtype}'
        )
    if out_dtype is not None and not out_dtype.is_floating_point:
        raise RuntimeError(
            f'tree_scan: out_dtype must be floating-point, got {out_dtype}'
        )
    batch, tokens, channels = x.shape
    has_shape('parents', order[0], '(L)', tokens)
    has_shape('A', A, '(C)', channels)
    has_shape('B', B, '(B, L)', batch, tokens)
    if dt_weight is None:
        has_shape('dt', dt, '(B, L, C)', batch, tokens, channels)
    else:
        rank = dt_weight.shape[-1]
        has_shape('dt', dt, '(B, L, R)', batch, tokens, rank)
        has_shape('dt_weight', dt_weight, '(C, R)', channels, rank)
    has_shape('dt_bias', dt_bias, '(C)', channels)


def _fake_forward(
    x,
    dt,
    A,
    B,
    dt_weight,
    dt_bias,
    order,
    delta_softplus=True,
    out_dtype=None,
):
    torch._check(
        x.dim() == 3,
        lambda: f'tree_scan: x must be (B, L, C), got {x.shape}',
    )
    return x.new_empty(x.shape, dtype=out_dtype or x.dtype)


def _fake_backward(grad, *inputs):
    return tuple(
        inputs[0].new_empty(0) if t is None else t.new_empty(t.shape)
        for t in inputs[:6]
    )


if native.is_available():
    torch.library.register_fake('mmssm::tree_scan', _fake_forward)
    torch.library.register_fake('mmssm::_tree_scan_backward', _fake_backward)
    register_gradient('tree_scan')
