"""What the ops' Python code asks of inputs, as the native ops do."""

import torch
from torch import Tensor

TOKEN_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of state and math: float64 for float64 tokens only."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def result_dtype(x: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """``out_dtype``, or by default x's; float32 for float16.

    A scan's sums can pass 65504, float16's largest number.
    """
    if out_dtype is not None:
        return out_dtype
    return torch.float32 if x.dtype == torch.float16 else x.dtype


def require(op: str, condition: bool, message: str) -> None:
    """Raise RuntimeError, as the native ops do, unless the condition holds."""
    if not condition:
        raise RuntimeError(f'{op}: {message}')


def require_shape(
    op: str, name: str, tensor: Tensor | None, axes: str, *want: int
) -> None:
    """Raise RuntimeError if a tensor is given and has another shape.

    Args:
        op (str): The op's name.
        name (str): The tensor's name.
        tensor (Tensor, optional): The tensor.
        axes (str): What the dimensions are, e.g. '(B, L, C)'.
        want (int): Their sizes.
    """
    if tensor is not None and tensor.shape != want:
        raise RuntimeError(
            f'{op}: {name} must have shape {axes} = {want}, got '
            f'{tuple(tensor.shape)}'
        )


def require_input(
    op: str,
    name: str,
    tensor: Tensor | None,
    tokens: Tensor,
    axes: str,
    *want: int,
    tokens_name: str = 'x',
) -> None:
    """Raise RuntimeError if a scan cannot use a tensor that is given.

    It must have a shape, be on the tokens' device, and be real: the ops would
    take complex values by their real parts.

    Args:
        op (str): The op's name.
        name (str): The tensor's name.
        tensor (Tensor, optional): The tensor.
        tokens (Tensor): The op's tokens.
        axes (str): What the dimensions are, e.g. '(B, L, C)'.
        want (int): Their sizes.
        tokens_name (str): The tokens' name. Defaults to 'x'.
    """
    if tensor is None:
        return
    require_shape(op, name, tensor, axes, *want)
    require_real(op, name, tensor)
    if tensor.device != tokens.device:
        raise RuntimeError(
            f'{op}: {name} is on {tensor.device} but {tokens_name} is on '
            f'{tokens.device}; move them to one device'
        )


def require_real(op: str, name: str, tensor: Tensor | None) -> None:
    """Raise RuntimeError if a tensor is given and complex."""
    if tensor is not None and tensor.is_complex():
        raise RuntimeError(
            f'{op}: {name} must be real, got {tensor.dtype}; pass '
            f'{name}.real to drop its imaginary part'
        )


def require_flag(op: str, name: str, value: object, hint: str = '') -> None:
    """Raise RuntimeError, which ends with the hint, unless a flag is a bool.

    The dispatcher takes a tensor of one element for a bool.
    """
    if not isinstance(value, bool):
        got = type(value).__name__ if torch.is_tensor(value) else repr(value)
        raise RuntimeError(
            f'{op}: {name} must be True or False, got {got}{hint}'
        )


def require_token_dtype(op: str, x: Tensor, name: str = 'x') -> None:
    """Raise RuntimeError unless the ops take the tokens' dtype."""
    if x.dtype not in TOKEN_DTYPES:
        raise RuntimeError(
            f'{op}: {name} must be float64, float32, float16 or bfloat16, got '
            f'{x.dtype}'
        )


def require_out_dtype(op: str, out_dtype: torch.dtype | None) -> None:
    """Raise RuntimeError if it is none that results can have."""
    require(
        op,
        out_dtype is None or out_dtype.is_floating_point,
        f'out_dtype must be floating-point, got {out_dtype}',
    )
