"""Spatial-Mamba's fusion of neighboring states on a map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .checks import (
    compute_dtype,
    require,
    require_shape,
    require_token_dtype,
)
from .gradients import register_gradient

_OP = 'state_fusion'
DILATIONS = (1, 3, 5)


def state_fusion(
    x: Tensor,
    weight: Tensor,
    alpha: Tensor,
    C: Tensor | None = None,
    D: Tensor | None = None,
    u: Tensor | None = None,
) -> Tensor:
    r"""Three dilated depthwise filters of a map, weighted and added.

    .. math::
        F_p = \sum_{i} \alpha_i \sum_{o \in \{-1, 0, 1\}^2}
        weight_{i, o}\, x_{\mathrm{clip}(p + d_i o)}, \quad d = 1, 3, 5

    the structure-aware state fusion of `Spatial-Mamba
    <https://arxiv.org/abs/2410.15091>`_: beyond its border the map goes on
    with the values at the border. With ``C``, ``D`` and ``u`` the states are
    also read out in the same pass, :math:`y_p = C_p F_p + D u_p`.

    The filters share their middle, so they are 25 different weights, applied
    in one pass over the map. These are computed in each call: there is
    nothing that could go stale.

    Args:
        x (Tensor): Map (B, H, W, C), float64, float32, bfloat16 or float16.
            All math are float32 (float64 for a float64 map).
        weight (Tensor): Filters (3, C, 3, 3), the one of dilation 1 first.
        alpha (Tensor): Their weights (3,).
        C (Tensor, optional): Output weights (B, H, W), one per token.
        D (Tensor, optional): Skip weights (C,).
        u (Tensor, optional): The skipped map (B, H, W, C).

    All must be floating-point, each of its own dtype.

    Returns:
        Tensor: (B, H, W, C), in x's dtype.

    Raises:
        RuntimeError: On shapes, dtypes or devices that do not fit, and where
            a second or a forward-mode derivative is asked for:
            :func:`state_fusion_reference` has those.
    """
    if not native.use_native(x):
        return state_fusion_reference(x, weight, alpha, C, D, u)
    _check_filters(x, weight, alpha)
    taps = merge_taps(weight, alpha, compute_dtype(x))
    result: Tensor = _native_fusion(x, taps, C, D, u)
    return result


def state_fusion_reference(
    x: Tensor,
    weight: Tensor,
    alpha: Tensor,
    C: Tensor | None = None,
    D: Tensor | None = None,
    u: Tensor | None = None,
) -> Tensor:
    """:func:`state_fusion` composed from three convolutions.

    Arguments and result are the same; it is differentiable to any order, and
    what the native op is tested against.
    """
    _check_filters(x, weight, alpha)
    _check_readout(x, C, D, u)
    dtype = compute_dtype(x)
    maps = x.to(dtype).permute(0, 3, 1, 2)
    fused = torch.zeros_like(maps)
    # The math must not follow autocast to 16 bits.
    with torch.autocast(x.device.type, enabled=False):
        for dilation, filters, share in zip(
            DILATIONS, weight.to(dtype), alpha.to(dtype)
        ):
            convolved = F.conv2d(
                _replicate(maps, dilation),
                filters.unsqueeze(1),
                dilation=dilation,
                groups=filters.shape[0],
            )
            fused = fused + share * convolved
        fused = fused.permute(0, 2, 3, 1)
        if C is not None and D is not None and u is not None:
            fused = C.to(dtype).unsqueeze(-1) * fused + D.to(dtype) * u
    return fused.to(x.dtype)


def merge_taps(weight: Tensor, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    """The 25 different weights of the three filters.

    Args:
        weight (Tensor): Filters (3, C, 3, 3).
        alpha (Tensor): Their weights (3,).
        dtype (torch.dtype): Of the result.

    Returns:
        Tensor: (25, C), in the order of ``csrc/state_fusion/args.h``.
    """
    scaled = weight.to(dtype) * alpha.to(dtype).view(3, 1, 1, 1)
    # By row of the filters: (dilation, column, C).
    top, row, bottom = scaled.permute(2, 0, 3, 1)
    return torch.cat(
        [
            top.flatten(0, 1),
            row[:, 0],
            row[:, 1].sum(0, keepdim=True),
            row[:, 2],
            bottom.flatten(0, 1),
        ]
    )


def _replicate(maps: Tensor, width: int) -> Tensor:
    """Pad (B, C, H, W) by copies of its border, of any size."""
    for axis in (2, 3):
        index = torch.arange(-width, maps.shape[axis] + width)
        index = index.clamp(0, maps.shape[axis] - 1).to(maps.device)
        maps = maps.index_select(axis, index)
    return maps


def _check_filters(x: Tensor, weight: Tensor, alpha: Tensor) -> None:
    if x.dim() != 4 or 0 in x.shape[1:3]:
        raise RuntimeError(
            f'{_OP}: x must be a map (B, H, W, C) with at least one token, '
            f'got {tuple(x.shape)}'
        )
    require_token_dtype(_OP, x)
    _require_like(x, 'weight', weight)
    _require_like(x, 'alpha', alpha)
    require_shape(_OP, 'weight', weight, '(3, C, 3, 3)', 3, x.shape[3], 3, 3)
    require_shape(_OP, 'alpha', alpha, '(3)', 3)


def _require_like(x: Tensor, name: str, tensor: Tensor) -> None:
    if tensor.device != x.device or not tensor.is_floating_point():
        raise RuntimeError(
            f'{_OP}: {name} must be floating-point and on {x.device}, '
            f'like x, got {tensor.dtype} on {tensor.device}'
        )


def _check_readout(
    x: Tensor, C: Tensor | None, D: Tensor | None, u: Tensor | None
) -> None:
    """Reject what the native op rejects and plain PyTorch would not."""
    require(
        _OP,
        (C is None) == (D is None) == (u is None),
        'a read-out takes C, D and u; give all three or none',
    )
    require_shape(_OP, 'C', C, '(B, H, W)', *x.shape[:3])
    require_shape(_OP, 'D', D, '(C)', x.shape[3])
    require_shape(_OP, 'u', u, '(B, H, W, C)', *x.shape)
    for name, tensor in (('C', C), ('D', D), ('u', u)):
        if tensor is not None:
            _require_like(x, name, tensor)


def _fake(x: Tensor, taps: Tensor, *readout: Tensor | None) -> Tensor:
    """The shapes that tracing needs."""
    torch._check(
        x.dim() == 4, lambda: f'{_OP}: x must be (B, H, W, C), got {x.shape}'
    )
    require_token_dtype(_OP, x)
    for name, tensor in zip(('C', 'D', 'u'), readout):
        if tensor is not None:
            _require_like(x, name, tensor)
    return x.new_empty(x.shape)


if native.is_available():
    torch.library.register_fake('mmssm::state_fusion', _fake)
    _native_fusion = register_gradient('state_fusion')
