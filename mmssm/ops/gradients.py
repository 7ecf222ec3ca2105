"""The gradients of the native ops, registered with PyTorch's dispatcher."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

# Registrations end with the object that made them.
_LIBRARY = torch.library.Library('mmssm', 'IMPL')


def register_gradient(op: str, with_checkpoints: bool = False) -> None:
    """Make ``mmssm::_<op>_backward`` the gradient of ``mmssm::<op>``.

    The backward op takes the gradient of the result, the state checkpoints if
    there are any, and the op's own arguments (without ``out_dtype``). It gives
    the gradients of the float inputs, which are the first arguments.

    An op has no second and no forward-mode derivative: asking for one is an
    error, where PyTorch would take it for zero.

    Args:
        op (str): The op's name.
        with_checkpoints (bool): Whether forward is ``mmssm::_<op>_forward``
            where a gradient is to come: it also gives the state checkpoints.
    """
    ops = torch.ops.mmssm
    run = getattr(ops, op).default
    run_fwd = getattr(
        ops, f'_{op}_forward' if with_checkpoints else op
    ).default
    run_bwd = getattr(ops, f'_{op}_backward').default
    schema = run_bwd._schema
    float_inputs = len(schema.returns)
    own = schema.arguments[1 + with_checkpoints :]
    tensors = sum('Tensor' in str(argument.type) for argument in own)
    defaults = [a.default_value for a in run._schema.arguments]

    def compute(run: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return run(*args)

    class NoSecondDerivative(Function):
        """The backward op where its own gradient may be asked for."""

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            return compute(run_bwd, *args)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(
                f'{op} has no second derivative; use {op}_reference if you '
                'need one'
            )

    class Gradient(Function):
        """The op where a gradient is to come."""

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Tensor:
            kept: list[Tensor] = []
            result = compute(run_fwd, *args)
            if with_checkpoints:
                result, checkpoints = result
                kept.append(checkpoints)
            ctx.save_for_backward(*kept, *args[:tensors])
            ctx.options = args[tensors : len(own)]
            ctx.unused = len(args) - float_inputs
            return result

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            saved = ctx.saved_tensors
            args = (grad, *saved, *ctx.options)
            if torch.is_grad_enabled():
                grads = NoSecondDerivative.apply(*args)
            else:
                grads = compute(run_bwd, *args)
            inputs = saved[with_checkpoints:]
            grads = [
                grad if given is not None else None
                for grad, given in zip(grads, inputs)
            ]
            return (*grads, *[None] * ctx.unused)

    def autograd_kernel(*args: Any) -> Any:
        # The dispatcher leaves out what has its default value.
        args = (*args, *defaults[len(args) :])
        inputs = [t for t in args[:float_inputs] if t is not None]
        if forward_ad._current_level >= 0:
            _refuse_tangents(op, inputs)
        if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
            return Gradient.apply(*args)
        return compute(run, *args)

    _LIBRARY.impl(op, autograd_kernel, 'Autograd')


def _refuse_tangents(op: str, inputs: list[Tensor]) -> None:
    for tensor in inputs:
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f'{op} has no forward-mode derivative; use {op}_reference if '
                'you need one'
            )
