"""Layers whose weights are packed once, for inference on a CPU.

oneDNN's products read a weight in blocks. A linear layer of PyTorch brings its
weight into that layout in each call; here it is kept. oneDNN also applies an
activation or adds a map to the result while it is in the cache.

A layer becomes its packed kind by a change of its class: its parameters, name
and hooks stay. It computes as before where packed weights do not serve: with
gradients, autocast, other devices or dtypes, and while it is compiled or
exported.
"""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from mmcv.cnn import Linear
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmssm.utils import UserError

from .map_conv import MapConv2d
from .slices import has_hooks, runs_eagerly_on_cpu

_Layer = TypeVar('_Layer', bound=nn.Module)


class PackedWeight:
    """A matrix (out, in) in oneDNN's layout, packed again when it changes.

    Args:
        dtype (torch.dtype): Of the products: float32 or bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._packed: Tensor | None = None
        self._weight: Callable[[], object] = lambda: None
        self._state: tuple[int, int] | None = None

    def __reduce__(self) -> tuple[type, tuple[torch.dtype]]:
        # Copies and files are without the packed weight, which has no bytes
        # that could be copied.
        return PackedWeight, (self.dtype,)

    def multiply(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        act: str = 'none',
        algorithm: str = '',
        add: Tensor | None = None,
    ) -> Tensor:
        """``act(x @ weight.T + bias)``, or that product plus ``add``.

        Args:
            x (Tensor): (..., in).
            weight (Tensor): (out, in), or (out, ...) with as many numbers.
            bias (Tensor, optional): (out).
            act (str): oneDNN's name of an activation. Defaults to 'none'.
            algorithm (str): How it is computed, for 'gelu'.
            add (Tensor, optional): (..., out) float32, instead of ``act``.

        Returns:
            Tensor: (..., out), of ``add``'s dtype, else :attr:`dtype`.
        """
        op = torch.ops.mkldnn._linear_pointwise
        packed = self.pack(weight)
        x = x.to(self.dtype)
        bias = None if bias is None else bias.to(self.dtype)
        if add is None:
            return op(x, packed, bias, act, [], algorithm)
        if self.dtype == add.dtype:
            return op.binary(x, add, packed, bias, 'add')
        return add + op(x, packed, bias, 'none', [], '')

    def pack(self, weight: Tensor) -> Tensor:
        """The weight in oneDNN's layout; packs it if it has changed.

        A change through ``weight.data`` is not seen, since PyTorch does not
        count it.
        """
        state = weight.data_ptr(), weight._version
        # Another tensor may have come to the same address.
        same = self._weight() is weight and state == self._state
        if self._packed is None or not same:
            matrix = weight.detach().flatten(1).to(self.dtype).contiguous()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(
                matrix, None
            )
            self._weight, self._state = weakref.ref(weight), state
        return self._packed


def _serves(x: Tensor, weight: Tensor) -> bool:
    """Whether a product with a packed weight takes the layer's place."""
    return (
        type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_grad_enabled()
        and runs_eagerly_on_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and weight.device.type == 'cpu'
        and x.numel() > 0
        and not torch.is_autocast_enabled('cpu')
        # An inference tensor does not count its changes.
        and not weight.is_inference()
        # Tools that watch or transform operators know PyTorch's own.
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


class _Packed(nn.Module):
    """A layer that becomes plain again for training.

    Attributes:
        packed (PackedWeight): The weight.
        plain_kind (type): The plain layer's class.
    """

    packed: PackedWeight
    plain_kind: type[nn.Module]

    def train(self: _Layer, mode: bool = True) -> _Layer:
        """Become a plain layer if ``mode`` is True."""
        if mode:
            _make_plain(self)
        return nn.Module.train(self, mode)


class PackedLinear(_Packed, nn.Linear):
    """``nn.Linear`` with a packed weight."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in x's dtype."""
        if not _serves(x, self.weight):
            return super().forward(x)
        return self.packed.multiply(x, self.weight, self.bias).to(x.dtype)


class PackedFFN(_Packed, FFN):
    """mmcv's FFN of two packed linear layers with a GELU."""

    layers: Any  # of mmcv, which has no types

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., C)."""
        first, second = self.layers[0][0], self.layers[1]
        # Adapters, hooks and active dropouts work as without packing.
        if (
            type(first) is not PackedLinear
            or type(second) is not PackedLinear
            or not _serves(x, first.weight)
            or not (identity is None or identity.shape == x.shape)
            or not _can_fuse(self)
            or any(module.training for module in self.modules())
            or has_hooks(self)
        ):
            return super().forward(x, identity)
        hidden = first.packed.multiply(
            x,
            first.weight,
            first.bias,
            act='gelu',
            algorithm=self.layers[0][1].approximate,
        )
        if identity is None:
            identity = x
        return second.packed.multiply(
            hidden, second.weight, second.bias, add=identity
        )


class PackedMapConv2d(_Packed, MapConv2d):
    """``MapConv2d`` with a packed weight for its product."""

    def _multiply(self, windows: Tensor) -> Tensor:
        if not _serves(windows, self.weight):
            return super()._multiply(windows)
        y = self.packed.multiply(windows, self.weight, self.bias)
        return y.to(windows.dtype)


_PACKED_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PackedLinear,
    Linear: PackedLinear,
    FFN: PackedFFN,
    MapConv2d: PackedMapConv2d,
}
# The largest deviation on a sample, relative to the largest value.
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def optimize_for_inference(
    model: nn.Module,
    sample: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Prepare a model for inference on a CPU, in place.

    Linear layers keep their weights in the layout that oneDNN's products
    read, and an FFN's activation and sum are computed with its products. That
    needs the memory of these weights once more (half of it for bfloat16).
    Images of any size can follow. The state dict stays as it is, and weights
    may be loaded later; after a change through ``weight.data``, call this
    function again. ``model.train()`` makes everything plain again.

    Prepared layers serve where no gradient is recorded
    (``torch.inference_mode()`` or ``torch.no_grad()``); elsewhere the model
    computes as before. A compiler ignores what was prepared.

    Args:
        model (nn.Module): A backbone, or a model with any layers, in eval
            mode, float32, on the CPU.
        sample (Tensor, optional): An input of ``model(sample)``, to check
            that it gives the same tensors with it as before.
        dtype (torch.dtype): Of the products and an FFN's hidden map: float32,
            or bfloat16, which is faster on CPUs with instructions for it
            (AVX512_BF16, AMX) and changes results by about 1 %. Everything
            else stays float32. Defaults to float32.

    Returns:
        nn.Module: The model.

    Raises:
        UserError: If the model or this CPU cannot be prepared.
        RuntimeError: If the results for ``sample`` differ.

    Example:
        >>> model = mmssm.VMamba('tiny-s1l8').eval()
        >>> model = mmssm.optimize_for_inference(model)
        >>> with torch.inference_mode():
        ...     maps = model(torch.rand(1, 3, 224, 224))
    """
    _check(model, dtype)
    for layer in model.modules():
        _make_plain(layer)
    before = None if sample is None else _results(model, sample)
    layers = [m for m in model.modules() if _can_pack(m)]
    if not layers:
        raise UserError(
            f'{type(model).__name__} has no linear layer to prepare'
        )
    for layer in layers:
        kind = _PACKED_KINDS[type(layer)]
        packed = PackedWeight(dtype)
        vars(layer).update(plain_kind=type(layer), packed=packed)
        layer.__class__ = kind
        if isinstance(layer, nn.Linear) and not layer.weight.is_inference():
            packed.pack(layer.weight)
    if before is not None:
        _compare(_results(model, sample), before, dtype)
    return model


def _check(model: nn.Module, dtype: torch.dtype) -> None:
    if dtype not in _TOLERANCES:
        raise UserError(f'dtype must be float32 or bfloat16, got {dtype}')
    if not torch.backends.mkldnn.is_available():
        raise UserError(
            'this build of PyTorch has no oneDNN, which inference with packed '
            'weights needs; use the model as it is'
        )
    if (
        dtype is torch.bfloat16
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        raise UserError(
            'this CPU has no instructions for bfloat16; use float32'
        )
    if model.training:
        raise UserError(
            'the model is in training mode; call model.eval() first'
        )
    for name, parameter in model.named_parameters():
        if parameter.device.type != 'cpu' or parameter.dtype != torch.float32:
            raise UserError(
                f'{name} is {parameter.dtype} on {parameter.device}; models '
                'are prepared in float32 on the CPU, see model.float().cpu()'
            )


def _can_pack(layer: nn.Module) -> bool:
    if isinstance(layer, FFN) and not _can_fuse(layer):
        return False
    return type(layer) in _PACKED_KINDS


def _can_fuse(ffn: FFN) -> bool:
    """Whether an FFN is two linear layers with a GELU and a sum."""
    return (
        ffn.add_identity
        and ffn.num_fcs == 2
        and type(ffn.layers[0][1]) is nn.GELU
        and isinstance(getattr(ffn, 'gamma2', None), nn.Identity | None)
    )


def _make_plain(layer: nn.Module) -> None:
    if type(layer) in _PACKED_KINDS.values():
        layer.__class__ = layer.plain_kind  # type: ignore[assignment]
        del vars(layer)['plain_kind'], vars(layer)['packed']


def _results(model: nn.Module, sample: Tensor | None) -> list[Tensor]:
    with torch.inference_mode():
        leaves = tree_leaves(model(sample))
    return [
        leaf
        for leaf in leaves
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]


def _compare(
    after: list[Tensor], before: list[Tensor], dtype: torch.dtype
) -> None:
    for have, want in zip(after, before):
        error = float((have - want).abs().max())
        most = _TOLERANCES[dtype] * float(want.abs().max())
        if not error <= most:
            raise RuntimeError(
                f'the prepared model deviates by {error:.2g} on the sample, '
                f'more than {most:.2g}; model.train() makes it plain again'
            )
