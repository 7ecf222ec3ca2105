"""One set of inputs for each op, for what must hold for all of them."""

from collections.abc import Callable
from typing import NamedTuple

import fusion_inputs
import scan_inputs
import torch
import tree_inputs

from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
    selective_scan,
    selective_scan_reference,
    state_fusion,
    state_fusion_reference,
    tree_scan,
    tree_scan_reference,
)


class OpCase(NamedTuple):
    """An op, its reference, and what makes their inputs by name."""

    op: Callable
    reference: Callable
    make: Callable[[torch.dtype], dict]


def routed(output):
    """Routes that pass some tokens several times and leave the map."""

    def make(dtype):
        inputs = scan_inputs.make_inputs(
            batch=3,
            tokens=50,
            steps=90,
            channels=40,
            padding=True,
            dtype=dtype,
        )
        return scan_inputs.for_output(inputs, output)

    return OpCase(routed_selective_scan, routed_selective_scan_reference, make)


def sequence(dtype):
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    routed = scan_inputs.make_inputs(
        3, 90, 40, num_routes=1, rank=0, groups=2, dtype=dtype
    )
    inputs = dict(
        u=routed['x'].mT,
        delta=routed['dt'][:, :, 0].mT,
        A=routed['A'][0],
        B=routed['B'][:, :, 0].permute(0, 2, 3, 1),
        C=routed['C'][:, :, 0].permute(0, 2, 3, 1),
        D=routed['D'][0].to(parameter),
        delta_bias=routed['dt_bias'][0].to(parameter),
    )
    inputs = {k: v.detach().contiguous() for k, v in inputs.items()}
    for tensor in inputs.values():
        tensor.requires_grad_()
    return {**inputs, 'delta_softplus': True}


def gated(dtype):
    """With z, and B of its own dtype and the same at all steps."""
    inputs = sequence(dtype)
    parameter = inputs['A'].dtype
    first = inputs['B'].detach()[0, 0, :, 0].to(parameter)
    B = first + torch.linspace(-1, 1, 40, dtype=parameter).unsqueeze(1)
    z = inputs['u'].detach().flip(2)
    return {**inputs, 'B': B.requires_grad_(), 'z': z.requires_grad_()}


def fusion(dtype):
    return fusion_inputs.make_inputs(3, 9, 13, 40, dtype=dtype)


def tree(dtype):
    parents = tree_inputs.random_tree(90, 4)
    return tree_inputs.make_inputs(parents, 3, 40, dtype=dtype)


CASES = {
    'routed_sum': routed('sum'),
    'routed_routes': routed('routes'),
    'routed_states': routed('states'),
    'selective': OpCase(selective_scan, selective_scan_reference, sequence),
    'gated': OpCase(selective_scan, selective_scan_reference, gated),
    'fusion': OpCase(state_fusion, state_fusion_reference, fusion),
    'tree': OpCase(tree_scan, tree_scan_reference, tree),
}


def run(function, inputs, grad=None):
    """[result, gradients of the inputs that want one].

    ``grad`` is the result's gradient: by default from -1 to 1.
    """
    y = function(**inputs)
    if grad is None:
        grad = torch.linspace(-1, 1, y.numel()).to(y.dtype).view(y.shape)
    leaves = [
        t for t in inputs.values() if torch.is_tensor(t) and t.requires_grad
    ]
    grads = torch.autograd.grad(y, leaves, grad.to(y.device))
    return [y.detach(), *grads]


def assert_near(got, want, limit):
    """Errors at most this share of each one's largest value."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        largest = float(b.abs().max()) if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=limit * max(1, largest))


def assert_same_bits(first, second):
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
