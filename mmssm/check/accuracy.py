"""Compare each op with its reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mmssm.ops

from .cases import Case, cases

# Errors allowed, relative to the largest value of the reference. In float64
# and float32, sums over some hundred steps are rounded many times. In 16 bits
# the op computes in float32 and rounds the result once, by 2^-8 or 2^-11 at
# most.
LIMITS = {
    torch.float64: 1e-11,
    torch.float32: 3e-5,
    torch.bfloat16: 1.1 * 2**-8,
    torch.float16: 1.1 * 2**-11,
}
# Ops whose result's dtype can be chosen.
OUT_DTYPE_OPS = ('routed_selective_scan', 'tree_scan')
# Inputs in the dtype of the tokens; with 16 bits, parameters are in float32.
TOKENS = {'x', 'dt', 'u', 'delta', 'B', 'C'}


@dataclass
class Accuracy:
    """How close an op is to its reference in one case.

    Errors are relative to the largest value of the reference; they are
    infinite for a result that is not finite or has a wrong shape or dtype.

    Attributes:
        op (str): The name of the op.
        case (str): The name of the case.
        device (str): 'cpu' or 'cuda'.
        dtype (str): The dtype of the tokens.
        limit (float): The largest error allowed, of results and gradients.
        forward (float | None): Error of the result; None if it failed.
        backward (float | None): The largest error of a gradient.
        gradient (str): The input that has this gradient.
        failure (str): The error that the op raised, '' if none.
    """

    op: str
    case: str
    device: str
    dtype: str
    limit: float
    forward: float | None = None
    backward: float | None = None
    gradient: str = ''
    failure: str = ''

    @property
    def passed(self) -> bool:
        """Whether the op ran and all errors are within the limit."""
        errors = (self.forward, self.backward)
        return not self.failure and all(
            error is not None and error <= self.limit for error in errors
        )


def accuracy(device: str) -> Iterator[Accuracy]:
    """Check every op in every case and dtype, one at a time.

    References run on the CPU in float64, on the same rounded inputs.

    Args:
        device (str): 'cpu' or 'cuda'.

    Yields:
        Accuracy: One for each check, also for an op that fails.
    """
    for case in cases():
        for dtype, limit in LIMITS.items():
            yield check(case, torch.device(device), dtype, limit)


def check(
    case: Case, device: torch.device, dtype: torch.dtype, limit: float
) -> Accuracy:
    """Check one op in one case and dtype, see :func:`accuracy`."""
    result = Accuracy(case.op, case.name, device.type, str(dtype)[6:], limit)
    try:
        errors = _errors(case, device, dtype)
    except Exception as error:  # of any type, on an unknown machine
        result.failure = (
            f'{type(error).__name__}: {" ".join(str(error).split())}'
        )
        return result
    result.forward = errors.pop('result')
    result.gradient = max(errors, key=errors.get)
    result.backward = errors[result.gradient]
    return result


def _errors(
    case: Case, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Errors of the result, under that name, and of every gradient."""
    inputs = {n: _cast(n, t, dtype) for n, t in case.tensors.items()}
    # By default float16 tokens give float32.
    narrow = dict(out_dtype=dtype) if case.op in OUT_DTYPE_OPS else {}
    got = _run(getattr(mmssm.ops, case.op), case, inputs, device, **narrow)
    reference = getattr(mmssm.ops, f'{case.op}_reference')
    wide = {
        n: t.double() if t.is_floating_point() else t
        for n, t in inputs.items()
    }
    want = _run(reference, case, wide, torch.device('cpu'))
    dtypes = {n: t.dtype for n, t in inputs.items()}
    return {
        name: _error(got[name], want[name], dtypes.get(name, dtype))
        for name in want
    }


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if name in TOKENS:
        return tensor.to(dtype)
    return tensor.to(torch.promote_types(dtype, torch.float32))


def _run(
    op: Callable[..., Tensor],
    case: Case,
    inputs: dict[str, Tensor],
    device: torch.device,
    **options: Any,
) -> dict[str, Tensor]:
    """The result and the gradients of all inputs by name, on the CPU."""
    given = {n: t.to(device) for n, t in inputs.items()}
    leaves = {
        n: t.detach().requires_grad_()
        for n, t in given.items()
        if t.is_floating_point()
    }
    result = op(**{**given, **leaves}, **case.options, **options)
    generator = torch.Generator().manual_seed(1)
    # A few bits are enough, so no dtype rounds it.
    grad = torch.randint(-4, 5, result.shape, generator=generator) / 4
    grads = torch.autograd.grad(
        result, list(leaves.values()), grad.to(device, result.dtype)
    )
    found = dict(zip(leaves, grads), result=result)
    return {n: t.detach().cpu() for n, t in found.items()}


def _error(got: Tensor, want: Tensor, dtype: torch.dtype) -> float:
    """Largest difference, relative to the largest wanted value."""
    if got.shape != want.shape or got.dtype != dtype:
        return float('inf')
    difference = (got.double() - want).abs().max()
    error = float(difference / want.abs().max())
    return error if error == error else float('inf')
