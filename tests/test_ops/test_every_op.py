"""What holds for every op on every device: memory, order, plans."""

import pytest
import scan_inputs
import torch
import tree_inputs
from on_device import move
from op_cases import CASES, assert_near, assert_same_bits, run

from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
    tree_scan,
    tree_scan_reference,
)

LIMITS = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def deterministic():
    """In this mode PyTorch also fills new memory with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def offset(tensor):
    """Its values, one element into their memory: aligned to nothing."""
    memory = torch.full_like(tensor.flatten(), 0).repeat(2)
    view = memory[1 : 1 + tensor.numel()].view(tensor.shape)
    return view.copy_(tensor)


def part(tensor):
    """Its values in the middle of wider ones, as of one projection."""
    wide = tensor.new_zeros(*tensor.shape[:-1], tensor.shape[-1] + 8)
    return wide[..., 3 : 3 + tensor.shape[-1]].copy_(tensor)


def transposed(tensor):
    """Its values, the first axis innermost; a vector's two apart."""
    if tensor.dim() == 1:
        return tensor.repeat_interleave(2)[::2]
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def expanded(tensor):
    """The first of its first axis only, for all: a stride of 0."""
    return tensor[:1].expand(tensor.shape)


def expanded_inside(tensor):
    """The first of its last axis only, for all: a stride of 0 there."""
    return tensor[..., :1].expand(tensor.shape)


EXPANDED = [expanded, expanded_inside]
VIEWS = [offset, part, transposed, *EXPANDED]


@pytest.mark.parametrize('dtype', LIMITS)
@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('name', CASES)
def test_views(device, name, view, dtype):
    """Inputs, and the result's gradient, may lie in memory as they like."""
    case = CASES[name]
    inputs = case.make(dtype)
    # Routes or a tree that one index is repeated for would be others.
    kept = ('routes', 'parents') if view in EXPANDED else ()

    def lie(given, how):
        return {
            k: how(v.detach()).requires_grad_(v.requires_grad)
            if torch.is_tensor(v) and k not in kept
            else v
            for k, v in given.items()
        }

    def in_order(tensor):
        return view(tensor).clone(memory_format=torch.contiguous_format)

    shape = case.op(**inputs).shape
    grad = torch.linspace(-1, 1, shape.numel(), dtype=dtype).view(shape)
    got = run(case.op, lie(move(inputs, device), view), view(grad.to(device)))
    want = run(case.reference, lie(inputs, in_order), in_order(grad))
    assert_near(got, want, LIMITS[dtype])


@pytest.mark.parametrize('dtype', LIMITS)
@pytest.mark.parametrize('name', CASES)
def test_same_bits_every_run(device, deterministic, name, dtype):
    """Though routes pass a token several times, and several routes do."""
    case = CASES[name]
    inputs = move(case.make(dtype), device)
    first = run(case.op, inputs)
    for _ in range(3):
        assert_same_bits(first, run(case.op, inputs))
    assert_near(first, run(case.reference, case.make(dtype)), LIMITS[dtype])


def one_route(dtype):
    """Which passes no token twice."""
    inputs = scan_inputs.make_inputs(3, 90, 40, num_routes=1, dtype=dtype)
    return {**inputs, 'routes': torch.arange(90).flip(0)[None]}


# On a GPU the sum over routes, or over a token's visits, has no order of its
# own. Without a mode that is asked for, these are the same each time:
ORDERED = {
    'one route': CASES['routed_sum']._replace(make=one_route),
    'selective': CASES['selective'],
    'fusion': CASES['fusion'],
    'tree': CASES['tree'],
}


@pytest.mark.parametrize('name', ORDERED)
def test_same_bits_without_being_asked(device, name):
    case = ORDERED[name]
    inputs = move(case.make(torch.float32), device)
    first = run(case.op, inputs)
    for _ in range(3):
        assert_same_bits(first, run(case.op, inputs))


@pytest.mark.parametrize('name', ['routed_sum', 'routed_routes'])
def test_same_bits_on_a_cpu(name):
    """Where the sums have an order in any mode."""
    inputs = CASES[name].make(torch.float32)
    first = run(routed_selective_scan, inputs)
    assert_same_bits(first, run(routed_selective_scan, inputs))


@pytest.mark.parametrize('mode', ['default', 'deterministic'])
@pytest.mark.parametrize('output', ['sum', 'states'])
def test_long_routes_of_few_channels(device, request, output, mode):
    """A GPU cuts them in segments, each of which feels those around it."""
    if mode == 'deterministic':
        request.getfixturevalue('deterministic')
    inputs = scan_inputs.make_inputs(
        1, 400, 33, num_routes=2, rank=2, padding=True, steps=700
    )
    for name, scale, shift in (('A', 0.05, 0), ('dt_bias', 1, -3)):
        value = inputs[name].detach() * scale + shift
        inputs[name] = value.requires_grad_()
    inputs = scan_inputs.for_output(inputs, output)
    got = run(routed_selective_scan, move(inputs, device))
    assert_near(got, run(routed_selective_scan_reference, inputs), 1e-10)


def test_many_blocks(device):
    """So many that on a GPU one takes several items of the batch."""
    inputs = scan_inputs.make_inputs(
        600, 6, 257, num_routes=4, rank=1, states=1, dtype=torch.float32
    )
    got = run(routed_selective_scan, move(inputs, device))
    assert_near(got, run(routed_selective_scan_reference, inputs), 1e-4)


@pytest.mark.parametrize('sizes', [(1, 33), (300, 70)])
def test_trees_of_few_and_many_blocks(device, sizes):
    tokens = 1500 if sizes[0] == 1 else 20
    inputs = tree_inputs.make_inputs(
        tree_inputs.random_tree(tokens, 3), *sizes, dtype=torch.float32
    )
    got = run(tree_scan, move(inputs, device))
    assert_near(got, run(tree_scan_reference, inputs), 1e-4)


def constant_inputs(name, device):
    """A case's float64 inputs without a graph, and the tensors' names."""
    inputs = move(CASES[name].make(torch.float64), device)
    inputs = {
        k: v.detach() if torch.is_tensor(v) else v for k, v in inputs.items()
    }
    numbers = [
        k
        for k, v in inputs.items()
        if torch.is_tensor(v) and v.is_floating_point()
    ]
    return inputs, numbers


@pytest.mark.parametrize('kind', ['op', 'reference', 'traced'])
@pytest.mark.parametrize('name', CASES)
def test_complex_inputs_are_refused(device, name, kind):
    """Each by its name: its imaginary part would be lost."""
    case = CASES[name]
    function = case.reference if kind == 'reference' else case.op
    inputs, numbers = constant_inputs(name, device)
    for key in numbers:
        given = {**inputs, key: inputs[key].to(torch.complex128)}
        if kind == 'traced':
            given = {
                k: v.to('meta') if torch.is_tensor(v) else v
                for k, v in given.items()
            }
        message = f'^{case.op.__name__}: {key} must be .*got .*omplex'
        with pytest.raises(RuntimeError, match=message):
            function(**given)


@pytest.mark.parametrize('kind', ['op', 'reference'])
@pytest.mark.parametrize('name', CASES)
def test_integers(device, name, kind):
    """Scans take integer parameters; tokens, and a map's filters, are none."""
    function = getattr(CASES[name], kind)
    inputs, numbers = constant_inputs(name, device)
    for key in numbers:
        whole = inputs[key].round()
        given = {**inputs, key: whole.int()}
        if name == 'fusion' or key == numbers[0]:
            message = f'^{CASES[name].op.__name__}: {key} must be .*float'
            with pytest.raises(RuntimeError, match=message):
                function(**given)
        else:
            want = function(**{**inputs, key: whole})
            torch.testing.assert_close(function(**given), want)


@pytest.mark.parametrize('value', [torch.ones(1), 1, 'no', None])
@pytest.mark.parametrize('kind', ['op', 'reference'])
@pytest.mark.parametrize('name', ['routed_sum', 'selective', 'tree'])
def test_flags_are_bools(name, kind, value):
    """A tensor of one element would pass for one."""
    case = CASES[name]
    inputs = {**case.make(torch.float32), 'delta_softplus': value}
    message = (
        f'^{case.op.__name__}: delta_softplus must be True or False, got '
        + ('Tensor' if torch.is_tensor(value) else repr(value))
    )
    with pytest.raises(RuntimeError, match=message):
        getattr(case, kind)(**inputs)
