"""What a GPU alone has: streams, graphs, waiting for it, large memory."""

from threading import Thread

import fusion_inputs
import pytest
import scan_inputs
import torch
import tree_inputs
from on_device import move
from op_cases import CASES, assert_near, run

from mmssm.ops import (
    routed_selective_scan,
    routed_selective_scan_reference,
    tree_order,
)

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.parametrize('device', ['cuda'], indirect=True),
]
LIMIT = 3e-5  # of float32
A_WHILE = 50_000_000  # cycles, about 30 ms


def draw(name, seed):
    """A case's float32 inputs on the CPU, other numbers for other seeds."""
    generator = torch.Generator().manual_seed(seed)
    inputs = CASES[name].make(torch.float32)
    if 'parents' in inputs:  # else each call finds their order on the CPU
        inputs['parents'] = tree_order(inputs['parents'])
    for key in ('x', 'u'):
        if key in inputs:
            values = torch.randn(inputs[key].shape, generator=generator)
            inputs[key] = values.requires_grad_()
    return inputs


def blank(inputs, device):
    """The same inputs on a device, but for x and u, which are NaN."""
    inputs = move(inputs, device)
    for key in ('x', 'u'):
        if key in inputs:
            inputs[key].detach().fill_(torch.nan)
    return inputs


@torch.no_grad()
def fill(inputs, values):
    """Put x and u in place; ``values`` are on the same device."""
    for key in ('x', 'u'):
        if key in inputs:
            inputs[key].copy_(values[key])


@pytest.mark.parametrize('name', CASES)
def test_another_stream(device, name):
    """All work is put on the current stream, and waits for what is there."""
    case, inputs = CASES[name], draw(name, 1)
    late, values = blank(inputs, device), move(inputs, device)
    # Nothing below may wait, as a copy would.
    grad = torch.ones_like(run(case.op, late)[0])
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(A_WHILE)
        fill(late, values)
        got = run(case.op, late, grad)
    stream.synchronize()
    want = run(case.reference, inputs, torch.ones(grad.shape))
    assert_near(got, want, LIMIT)


@pytest.mark.parametrize('name', CASES)
def test_two_streams_at_once(device, name):
    """Neither's memory is the other's."""
    case = CASES[name]
    inputs = [draw(name, seed) for seed in (1, 2)]
    moved = [move(given, device) for given in inputs]
    grads = [torch.ones_like(run(case.op, given)[0]) for given in moved]
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    results = [[], []]
    for _ in range(5):
        for stream, given, grad, found in zip(streams, moved, grads, results):
            with torch.cuda.stream(stream):
                found.append(run(case.op, given, grad))
    torch.cuda.synchronize()
    for given, grad, found in zip(inputs, grads, results):
        want = run(case.reference, given, torch.ones(grad.shape))
        for got in found:
            assert_near(got, want, LIMIT)


def test_two_threads_at_once(device):
    """Both need more shared memory than a kernel has unasked, not as much."""
    inputs = [
        scan_inputs.make_inputs(2, 40, 64, rank=rank, dtype=torch.float32)
        for rank in (300, 150)
    ]
    for given in inputs:
        weight = given['dt_weight'].detach() * 0.1
        given['dt_weight'] = weight.requires_grad_()
    moved = [move(given, device) for given in inputs]
    results, errors = [[], []], []

    def work(given, found):
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(20):
                    found.append(run(routed_selective_scan, given))
                torch.cuda.current_stream().synchronize()
        except RuntimeError as error:
            errors.append(error)

    torch.cuda.synchronize()
    threads = [Thread(target=work, args=pair) for pair in zip(moved, results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for given, found in zip(inputs, results):
        want = run(routed_selective_scan_reference, given)
        assert len(found) == 20
        for got in found:
            assert_near(got, want, 1e-4)


@pytest.mark.parametrize('name', CASES)
def test_graphs(device, name):
    """Forward and backward, captured once, replayed on other values."""
    case = CASES[name]
    first, second = (draw(name, seed) for seed in (1, 2))
    inputs = move(first, device)
    values = move(second, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        grad = torch.ones_like(run(case.op, inputs)[0])
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(case.op, inputs, grad)
    want = run(case.reference, second, torch.ones(grad.shape))
    fill(inputs, values)
    for _ in range(2):
        for tensor in captured:
            tensor.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        assert_near(captured, want, LIMIT)


@pytest.fixture
def waiting_fails():
    """What makes the CPU wait for the GPU is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode('error')
    torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('name', CASES)
def test_nothing_waits_for_the_gpu(device, name, waiting_fails):
    """Indices are checked by the kernels: to look at them here would wait."""
    case = CASES[name]
    inputs = move(draw(name, 1), device)
    grad = torch.ones_like(run(case.op, inputs)[0])
    torch.cuda.synchronize()
    waiting_fails()
    run(case.op, inputs, grad)


def test_parents_are_waited_for(device, waiting_fails):
    """Their order is found on the CPU; the order itself is not looked at."""
    parents = CASES['tree'].make(torch.float32)['parents'].to(device)
    tree_order(parents)
    waiting_fails()
    with pytest.raises(RuntimeError, match='synchroniz'):
        tree_order(parents)


@pytest.mark.parametrize('name', ['x', 'dt', 'A', 'B', 'C', 'D', 'routes'])
def test_inputs_on_two_devices_are_named(device, name):
    inputs = scan_inputs.make_inputs()
    moved = move(inputs, device)
    moved[name] = inputs[name]
    message = f'{name} is on cpu but x is on cuda'
    if name == 'x':
        message = 'dt is on cuda.* but x is on cpu'
    with pytest.raises(RuntimeError, match=message):
        routed_selective_scan(**moved)


@pytest.mark.parametrize('name', CASES)
def test_inductor(device, name):
    """Within a graph of Triton's kernels."""
    case = CASES[name]
    inputs = draw(name, 1)
    tensors = {k: v for k, v in inputs.items() if torch.is_tensor(v)}
    options = {k: v for k, v in inputs.items() if k not in tensors}

    def function(op):
        def scaled(**given):
            return 2 * op(**given, **options).sin()

        return scaled

    torch.compiler.reset()
    got = run(torch.compile(function(case.op)), move(tensors, device))
    assert_near(got, run(function(case.reference), tensors), 1e-4)


def needs(gigabytes):
    """Skip where so much memory is not free."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 1e9
    if free < gigabytes:
        pytest.skip(f'needs {gigabytes} GB of GPU memory, {free:.0f} are free')


@pytest.fixture
def memory_given_back():
    yield
    torch.cuda.empty_cache()


def large(name, batch, device):
    """(inputs of a case, bfloat16, for a batch; those of its last item).

    Their tokens are 64 of 1024 channels: 2^15 items have 2^31 values.
    """
    make = {
        'routed_sum': lambda n: scan_inputs.make_inputs(
            n, 64, 1024, num_routes=1, rank=1, states=1, dtype=torch.bfloat16
        ),
        'fusion': lambda n: fusion_inputs.make_inputs(
            n, 8, 8, 1024, dtype=torch.bfloat16
        ),
        'tree': lambda n: tree_inputs.make_inputs(
            tree_inputs.random_tree(64, 3), n, 1024, 1, dtype=torch.bfloat16
        ),
    }[name]
    last = make(1)
    inputs = move(last, device)
    for key, value in inputs.items():
        if key in BATCHED and value is not None:
            items = value.detach().expand(batch, *value.shape[1:]).clone()
            items[:-1] = 0
            inputs[key] = items.requires_grad_()
    return inputs, last


BATCHED = ('x', 'u', 'dt', 'B', 'C')


@pytest.mark.parametrize(
    'name, gigabytes', [('routed_sum', 45), ('fusion', 45), ('tree', 65)]
)
def test_more_than_2_31_values(device, memory_given_back, name, gigabytes):
    """The last item of the batch is found, and alone is not zero."""
    needs(gigabytes)
    inputs, last = large(name, 2**15 + 3, device)
    case = CASES[name]
    want = case.reference(**last)
    y = case.op(**inputs)
    assert y.numel() > 2**31
    assert_near([y[-1:]], [want], 2e-2)
    assert not y[:1].any() and not y[2**14].any()
    grad = y.new_zeros(1, *y.shape[1:]).expand(y.shape).clone()
    grad[-1:] = 1
    del y
    d_x = torch.autograd.grad(case.op(**inputs), inputs['x'], grad)[0]
    wanted = torch.autograd.grad(want, last['x'], torch.ones_like(want))[0]
    assert_near([d_x[-1:]], [wanted], 2e-2)
    assert not d_x[:1].any() and not d_x[2**14].any()


def test_an_item_of_more_than_2_31_values(device, memory_given_back):
    """Only its last tokens are not zero."""
    needs(45)
    tokens, channels, kept = 2**19 + 40, 4096, 64
    last = scan_inputs.make_inputs(
        1,
        kept,
        channels,
        num_routes=1,
        rank=1,
        states=1,
        dtype=torch.bfloat16,
    )
    last['routes'] = torch.arange(kept)[None]
    want = routed_selective_scan_reference(**last)
    wanted = torch.autograd.grad(want, last['x'], torch.ones_like(want))[0]
    inputs = move(last, device)
    for key in ('x', 'dt', 'B', 'C'):
        value = inputs[key].detach()
        items = value.new_zeros(1, tokens, *value.shape[2:])
        items[:, -kept:] = value
        inputs[key] = items.requires_grad_()
    inputs['routes'] = torch.arange(tokens, device=device)[None]
    y = routed_selective_scan(**inputs)
    assert y.numel() > 2**31
    assert_near([y[:, -kept:]], [want], 2e-2)
    assert not y[:, :kept].any()
    grad = torch.zeros_like(y)
    grad[:, -kept:] = 1
    (d_x,) = torch.autograd.grad(y, inputs['x'], grad)
    assert_near([d_x[:, -kept:]], [wanted], 2e-2)
    assert not d_x[:, :kept].any()
