"""Kernels of other projects, if they can be imported."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def foreign_scans(
    device: torch.device,
) -> tuple[dict[str, Callable], list[str]]:
    """1-D scans of other projects, and why some of them cannot run here.

    Returns:
        tuple: Functions by name, with the arguments of
        :func:`mmssm.ops.selective_scan`; one line per missing scan.
    """
    finders = {
        'mamba-ssm': _find_mamba_ssm,
        "VMamba's kernel": _find_oflex,
    }
    return _find(finders, device)


def foreign_compositions(
    device: torch.device,
) -> tuple[dict[str, Callable], list[str]]:
    """Gather, scan and merge of other projects, and why some cannot run.

    Returns:
        tuple: Functions by name, with the arguments of
        ``gather_scan_merge`` (``routed_selective_scan.py``) without the
        first; one line per missing implementation.
    """
    return _find({"VMamba's Triton cross-scan": _find_cross_scan}, device)


def _find(
    finders: dict[str, Callable[[], Callable]], device: torch.device
) -> tuple[dict[str, Callable], list[str]]:
    found, missing = {}, []
    for name, find in finders.items():
        if device.type != 'cuda':
            missing.append(f'{name}: left out, it runs on CUDA only')
            continue
        try:
            found[name] = find()
        except Exception as error:  # Their imports fail in many ways.
            cause = ' '.join(str(error).split())
            missing.append(f'{name}: left out, its import fails ({cause})')
    return found, missing


def _find_mamba_ssm() -> Callable:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn


def _find_oflex() -> Callable:
    import selective_scan_cuda_oflex as kernel

    class Scan(torch.autograd.Function):
        """VMamba's kernel with its settings: 16-bit in, float32 out."""

        @staticmethod
        def forward(ctx, u, delta, A, B, C, D, delta_bias, softplus):
            inputs = (u, delta, A, B, C, D, delta_bias)
            out, states, *_ = kernel.fwd(*inputs, softplus, 1, True)
            ctx.save_for_backward(*inputs, states)
            ctx.softplus = softplus
            return out

        @staticmethod
        @once_differentiable
        def backward(ctx, grad):
            *inputs, states = ctx.saved_tensors
            grads = kernel.bwd(
                *inputs, grad.contiguous(), states, ctx.softplus, 1
            )
            return (*grads[:7], None)

    def scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
        return Scan.apply(u, delta, A, B, C, D, delta_bias, delta_softplus)

    return scan


def _find_cross_scan() -> Callable:
    """Import VMamba's ``csm_triton.py``, which must be on the path."""
    from csm_triton import cross_merge_fn, cross_scan_fn

    scan = _find_oflex()
    layout = dict(
        in_channel_first=True,
        out_channel_first=True,
        one_by_one=False,
        scans=0,  # rows, columns and both reversed
    )

    def composition(
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        routes: Tensor,
        dt_weight: Tensor,
        dt_bias: Tensor,
    ) -> Tensor:
        batch, channels, tokens = x.shape
        side = math.isqrt(tokens)
        u = cross_scan_fn(x.unflatten(-1, (side, side)), **layout)
        delta = torch.einsum('bkrt,kcr->bkct', dt, dt_weight)
        y = scan(
            u.reshape(batch, -1, tokens),
            delta.flatten(1, 2),
            A.flatten(0, 1),
            B,
            C,
            D.flatten(),
            dt_bias.flatten(),
            True,
        )
        shape = (batch, len(routes), channels, side, side)
        return cross_merge_fn(y.view(shape), **layout)

    return composition
