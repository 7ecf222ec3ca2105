"""The gradients of the native ops, registered with PyTorch's dispatcher."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.jit._trace import is_tracing

_Args = tuple[Any, ...]

# Registrations end with the object that made them.
_LIBRARY = torch.library.Library('mmssm', 'IMPL')


def register_gradient(name: str) -> Callable[..., Any]:
    """Make ``mmssm::_<name>_backward`` the gradient of ``mmssm::<name>``.

    The backward op takes the gradient of the result, the state checkpoints if
    the op has them as its second result, and the op's own arguments, in
    order, as far as it needs them. It gives the gradients of the first ones.
    An op that can keep state checkpoints (its last argument) does so where a
    gradient is to come, whatever it is asked for.

    An op has no second and no forward-mode derivative: asking for one is an
    error, where PyTorch would take it for zero.

    Args:
        name (str): The op's name.

    Returns:
        Callable: See :func:`native_call`.
    """
    pair = _OpPair(name)
    forward, backward = _autograd_kernels(pair, name)
    _LIBRARY.impl(pair.op, forward, 'Autograd')
    _LIBRARY.impl(pair.op_bwd, backward, 'Autograd')
    torch.library.register_fake(
        pair.op_bwd, _like_inputs(pair.keeps, pair.inputs)
    )
    return _eagerly(pair.op, forward)


def native_call(name: str, caller: str) -> Callable[..., Any]:
    """What calls ``mmssm::<name>`` for another function of :mod:`mmssm.ops`.

    Args:
        name (str): The op's name; its gradient is registered.
        caller (str): The function that errors name.

    Returns:
        Callable: Calls the op, with all of its arguments in order. Eagerly it
        spares the way from the dispatcher back to Python, which takes as long
        as the scan of a small map.
    """
    pair = _OpPair(name)
    return _eagerly(pair.op, _autograd_kernels(pair, caller)[0])


def _eagerly(op: Any, autograd_kernel: Callable[..., Any]) -> Any:
    def call(*args: Any) -> Any:
        # What traces is to see the op itself.
        if torch.compiler.is_compiling() or is_tracing():
            return op(*args)
        return autograd_kernel(*args)

    return call


class _OpPair:
    """An op and its backward op, and what their schemas tell."""

    def __init__(self, name: str) -> None:
        self.op = getattr(torch.ops.mmssm, name).default
        self.op_bwd = getattr(torch.ops.mmssm, f'_{name}_backward').default
        arguments = self.op._schema.arguments
        self.arguments = len(arguments)
        self.defaults = [argument.default_value for argument in arguments]
        self.tensors = sum('Tensor' in str(a.type) for a in arguments)
        self.keeps = arguments[-1].name == 'keep_checkpoints'
        # Those that backward takes, and those that it gives gradients of.
        self.taken = len(self.op_bwd._schema.arguments) - 1 - self.keeps
        self.inputs = len(self.op_bwd._schema.returns)


def _autograd_kernels(pair: _OpPair, name: str) -> tuple[Any, Any]:
    """Of the op and of the backward op; ``name`` is for errors."""
    op, op_bwd = pair.op, pair.op_bwd
    keeps, inputs, tensors = pair.keeps, pair.inputs, pair.tensors

    class Backward(_Derivative):
        """The backward op, where its own gradient may be asked for."""

        @staticmethod
        def forward(*args: Any) -> Any:
            return _below_autograd(op_bwd, args)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise _no_derivative(name, 'second')

        jvp = backward

    class Forward(_Derivative):
        """The op."""

        @staticmethod
        def forward(*args: Any) -> Any:
            return _below_autograd(op, args)

        @staticmethod
        def setup_context(ctx: Any, args: _Args, result: Any) -> None:
            ctx.set_materialize_grads(False)
            if keeps:
                ctx.mark_non_differentiable(result[1])
                ctx.save_for_backward(result[1], *args[:tensors])
            else:
                ctx.save_for_backward(*args[:tensors])
            ctx.options = args[tensors : pair.taken]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            unused = [None] * (pair.arguments - inputs)
            if grads[0] is None:
                return (*[None] * inputs, *unused)
            saved = ctx.saved_tensors
            args = (grads[0], *saved, *ctx.options)
            if torch.is_grad_enabled():
                found = Backward.apply(*args)
            else:
                found = _below_autograd(op_bwd, args)
            given = zip(saved[keeps:], found)
            return (*[None if t is None else g for t, g in given], *unused)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise _no_derivative(name, 'forward-mode')

    class PlainForward(Function):
        """The op outside of ``torch.func``, at half the cost."""

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            result = _below_autograd(op, args)
            Forward.setup_context(ctx, args, result)
            return result

        backward = Forward.backward
        jvp = Forward.jvp

    def autograd_kernel(*args: Any) -> Any:
        # The dispatcher leaves out what has its default value.
        args = (*args, *pair.defaults[len(args) :])
        needed = _requires_grad(args[:inputs])
        if keeps and needed:
            args = (*args[:-1], True)
        # A tangent needs no gradient, but must be refused.
        if needed or forward_ad._current_level >= 0:
            inside = torch._C._are_functorch_transforms_active()
            return (Forward if inside else PlainForward).apply(*args)
        return _below_autograd(op, args)

    def autograd_kernel_bwd(*args: Any) -> Any:
        if _requires_grad(args):
            return Backward.apply(*args)
        return _below_autograd(op_bwd, args)

    return autograd_kernel, autograd_kernel_bwd


class _Derivative(Function):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, args: _Args, result: Any) -> None:
        """Nothing to keep."""


def _below_autograd(op: Any, args: _Args) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _requires_grad(args: _Args) -> bool:
    return torch.is_grad_enabled() and any(
        [isinstance(a, Tensor) and a.requires_grad for a in args]
    )


def _no_derivative(name: str, kind: str) -> RuntimeError:
    return RuntimeError(
        f'{name} has no {kind} derivative; use {name}_reference if you need '
        'one'
    )


def _like_inputs(keeps: bool, inputs: int) -> Callable[..., Any]:
    """The backward op's fake kernel: gradients are like what they are of."""

    def fake(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
        given = args[keeps : keeps + inputs]
        given = (*given, *[None] * (inputs - len(given)))
        return tuple(
            given[0].new_empty(0) if t is None else t.new_empty(t.shape)
            for t in given
        )

    return fake
