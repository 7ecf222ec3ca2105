"""The scan's CUDA kernels, their own source, on an emulator."""

import pytest
import torch

from mmssm.ops import native, routed_selective_scan_reference
from mmssm.ops.checks import result_dtype

ORDER = 'x dt A B C D dt_weight dt_bias routes'.split()
FIBER_ORDERS = dict(forward=0, reverse=1, random=2)


def make_inputs(
    batch=2,
    tokens=37,
    steps=None,
    channels=5,
    num_routes=2,
    states=2,
    rank=3,
    groups=None,
    lowest=0,
    repeats=True,
    parameters=True,
    output='sum',
    dtype=torch.float64,
    seed=0,
):
    """The ops' inputs by name; ``rank`` 0 gives step sizes in full."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape, dtype=dtype):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    steps = steps or tokens
    if repeats:
        shape = (num_routes, steps)
        routes = torch.randint(lowest, tokens, shape, generator=generator)
    else:
        orders = [
            torch.randperm(tokens, generator=generator)[:steps]
            for _ in range(num_routes)
        ]
        routes = torch.stack(orders)
    weights = (states,) if groups is None else (groups, states)
    readout = output != 'states'
    skip = readout and parameters
    per_channel = (num_routes, channels)
    return dict(
        x=rand(batch, tokens, channels),
        dt=rand(batch, tokens, num_routes, rank or channels),
        A=-rand(*per_channel, states, dtype=wide).abs() - 0.05,
        B=rand(batch, tokens, num_routes, *weights),
        C=rand(batch, tokens, num_routes, *weights) if readout else None,
        D=rand(*per_channel, dtype=wide) if skip else None,
        dt_weight=rand(*per_channel, rank, dtype=wide) if rank else None,
        dt_bias=rand(*per_channel, dtype=wide) if parameters else None,
        routes=routes.int(),
        output=output,
    )


def emulate(ops, inputs, softplus=True, grad=None, out_dtype=None):
    """[result, checkpoints, and with ``grad`` the eight gradients]."""
    given = [inputs[name] for name in ORDER]
    y, checkpoints = ops.routed_selective_scan(
        *given, softplus, inputs['output'], out_dtype, True
    )
    results = [y, checkpoints]
    if grad is not None:
        results += ops._routed_selective_scan_backward(
            grad, checkpoints, *given, softplus, inputs['output']
        )
    return results


def reference(inputs, softplus, grad):
    """What :func:`emulate` gives, but for the checkpoints."""
    leaves = {
        name: inputs[name].clone().requires_grad_()
        for name in ORDER[:-1]
        if inputs[name] is not None
    }
    y = routed_selective_scan_reference(
        **{**inputs, **leaves}, delta_softplus=softplus
    )
    grads = torch.autograd.grad(y, list(leaves.values()), grad)
    found = dict(zip(leaves, grads))
    return [y.detach(), *(found.get(name) for name in ORDER[:-1])]


def assert_near(got, want, tolerance):
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.numel():
        error = (got.double() - want.double()).abs().max()
        assert error <= tolerance * want.double().abs().max().clamp_min(1)


def output_shape(inputs):
    (batch, tokens, channels), count = inputs['x'].shape, len(inputs['routes'])
    return {
        'sum': (batch, tokens, channels),
        'routes': (batch, count, tokens, channels),
        'states': (batch, count, tokens, channels, inputs['A'].shape[-1]),
    }[inputs['output']]


def draw_grad(inputs, dtype=None):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(output_shape(inputs), generator=generator)
    return drawn.to(dtype or result_dtype(inputs['x'], None))


def compare(ops, inputs, tolerance, softplus=True):
    grad = draw_grad(inputs)
    got = emulate(ops, inputs, softplus, grad)
    want = reference(inputs, softplus, grad)
    del got[1]
    for name, a, b in zip(['y', *ORDER[:-1]], got, want, strict=True):
        if b is None:
            assert a.numel() == 0, name
        else:
            assert_near(a, b, tolerance)


SHAPES = dict(
    one_step=dict(tokens=1),
    below_a_tile=dict(tokens=7, rank=0),
    one_tile=dict(tokens=16, channels=1, rank=1),
    one_chunk=dict(tokens=64, states=1, rank=6),
    beyond_a_chunk=dict(tokens=65, lowest=-1),
    two_warps=dict(channels=33, tokens=20),
    several_blocks=dict(channels=130, tokens=20, batch=1, rank=17),
    groups=dict(channels=66, groups=2, tokens=18),
    one_group_of_one=dict(channels=3, groups=3, tokens=18),
    many_states=dict(states=16, tokens=18, rank=1),
    shorter_route=dict(tokens=40, steps=11, rank=0),
    longer_route=dict(tokens=5, steps=90, lowest=-1),
    padding_only=dict(tokens=1, steps=40, lowest=-1),
    no_parameters=dict(parameters=False, num_routes=3),
    no_batch=dict(batch=0),
)


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
@pytest.mark.parametrize('shape', SHAPES)
def test_against_reference(ops, shape, output):
    inputs = make_inputs(**SHAPES[shape], output=output)
    compare(ops, inputs, 1e-9)


@pytest.mark.parametrize('name', ['batch', 'num_routes', 'channels'])
def test_nothing_to_do(ops, name):
    inputs = make_inputs(**{name: 0}, groups=None)
    results = emulate(ops, inputs, grad=draw_grad(inputs))
    assert results[0].shape == output_shape(inputs)
    assert not any(t.count_nonzero() for t in results)
    shapes = [inputs[n].shape for n in ORDER[:-1]]
    assert [t.shape for t in results[2:]] == shapes


@pytest.mark.parametrize('output', ['sum', 'routes', 'states'])
@pytest.mark.parametrize('segments', [2, 3, 100])
def test_segments(ops, segments, output):
    """Of a route whose last segment is shorter, and passes tokens again."""
    ops.set_plan(0, segments, 0)
    inputs = make_inputs(tokens=150, steps=197, lowest=-1, output=output)
    inputs['A'] *= 0.05  # so that a segment feels those before and after it
    inputs['dt_bias'] -= 3
    compare(ops, inputs, 1e-9)


@pytest.mark.parametrize('plan', [(32, 0, 1), (64, 0, 2), (96, 2, 2)])
def test_threads_and_shares_of_the_batch(ops, plan):
    ops.set_plan(*plan)
    compare(
        ops,
        make_inputs(batch=3, channels=140, tokens=70, groups=2, rank=5),
        1e-9,
    )


def test_plan_of_its_own(ops):
    """Enough blocks that the batch is shared out, with no limits set."""
    compare(ops, make_inputs(batch=40, num_routes=4, tokens=3, rank=1), 1e-9)


@pytest.mark.parametrize('softplus', [True, False])
@pytest.mark.parametrize('segments', [1, 2])
def test_float32(ops, softplus, segments):
    ops.set_plan(0, segments, 0)
    inputs = make_inputs(tokens=130, lowest=-1, dtype=torch.float32)
    if not softplus:
        inputs['dt'] = inputs['dt'].abs() * 0.1
        inputs['dt_weight'] = inputs['dt_weight'].abs()
        inputs['dt_bias'] = inputs['dt_bias'].abs() * 0.1
    compare(ops, inputs, 1e-5, softplus)


@pytest.mark.parametrize('segments', [1, 2])
def test_nothing_overflows_beyond_the_end(ops, segments):
    """States that grow, and would overflow with a zero token's step size."""
    ops.set_plan(0, segments, 0)
    inputs = make_inputs(
        tokens=70, rank=0, parameters=False, dtype=torch.float32
    )
    inputs['A'] = torch.full_like(inputs['A'], 150.0)
    inputs['dt'] = inputs['dt'] * 0.1 - 7
    compare(ops, inputs, 1e-4)


@pytest.mark.parametrize('rank', [0, 3])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tokens(ops, dtype, rank):
    """Read as they are: exact inputs, so only the results are rounded."""
    inputs = make_inputs(tokens=40, dtype=dtype, rank=rank)
    compare(ops, inputs, 1e-2)
    wide = {
        k: v.float() if torch.is_tensor(v) and k != 'routes' else v
        for k, v in inputs.items()
    }
    grad = draw_grad(inputs, dtype)
    y, checkpoints, *grads = emulate(
        ops, inputs, grad=grad, out_dtype=torch.float32
    )
    want = reference(wide, True, grad.float())
    assert_near(y, want[0], 1e-5)
    assert checkpoints.dtype == torch.float32
    for name, got, exact in zip(ORDER, grads, want[1:]):
        if exact is not None:
            assert got.dtype == inputs[name].dtype
            assert_near(got, exact.to(got.dtype), 1e-2)


def test_mixed_tokens(ops):
    """16-bit x beside float32 dt: all are read as float32."""
    inputs = make_inputs(tokens=20, dtype=torch.bfloat16)
    inputs['dt'] = inputs['dt'].float()
    compare(ops, inputs, 1e-2)


def test_views_of_one_projection(ops):
    inputs = make_inputs(tokens=20, rank=3, states=2)
    packed = torch.cat([inputs[n] for n in ('dt', 'B', 'C')], -1)
    views = dict(zip(('dt', 'B', 'C'), packed.split([3, 2, 2], -1)))
    compare(ops, {**inputs, **views}, 1e-9)


@pytest.mark.skipif(not native.is_available(), reason='no native CPU op')
@pytest.mark.parametrize('segments', [1, 3])
def test_checkpoints_are_those_of_the_cpu(ops, segments):
    ops.set_plan(0, segments, 0)
    inputs = make_inputs(tokens=200, channels=35, lowest=-1)
    given = [inputs[name] for name in ORDER]
    want = torch.ops.mmssm.routed_selective_scan(
        *given, True, 'sum', None, True
    )
    got = emulate(ops, inputs)
    for a, b in zip(got, want):
        assert_near(a, b, 1e-9)


@pytest.mark.parametrize('segments', [1, 3])
def test_checkpoints_change_no_result(ops, segments):
    """Bit for bit where no route passes a token twice: no sum has an order
    of its own, and that over two routes has none.
    """
    ops.set_plan(0, segments, 0)
    inputs = make_inputs(tokens=200, channels=35, repeats=False)
    given = [inputs[name] for name in ORDER]
    alone, none = ops.routed_selective_scan(*given, True, 'sum', None)
    assert none.numel() == 0
    assert torch.equal(alone, emulate(ops, inputs)[0])


@pytest.mark.parametrize('output', ['sum', 'states'])
@pytest.mark.parametrize('segments', [1, 2])
def test_threads_in_any_order(ops, segments, output):
    """Without barriers where they are needed, the order would show."""
    ops.set_plan(64, segments, 0)
    inputs = make_inputs(
        tokens=140, channels=70, batch=1, rank=5, repeats=False, output=output
    )
    grad = draw_grad(inputs)
    first = emulate(ops, inputs, grad=grad)
    for order in ('reverse', 'random'):
        ops.set_order(FIBER_ORDERS[order], False)
        again = emulate(ops, inputs, grad=grad)
        assert all(torch.equal(a, b) for a, b in zip(first, again)), order


def test_blocks_in_any_order(ops):
    ops.set_plan(32, 2, 0)
    inputs = make_inputs(tokens=140, channels=40, lowest=-1)
    grad = draw_grad(inputs)
    first = emulate(ops, inputs, grad=grad)
    ops.set_order(FIBER_ORDERS['forward'], True)
    for a, b in zip(first, emulate(ops, inputs, grad=grad)):
        assert_near(a, b, 1e-12)


def test_deterministic_algorithms(ops):
    """Bit for bit in any order, though routes pass tokens several times."""
    ops.set_plan(64, 3, 0)
    inputs = make_inputs(
        tokens=9, steps=130, channels=70, dtype=torch.float32, lowest=-1
    )
    grad = draw_grad(inputs)
    torch.use_deterministic_algorithms(True)  # also fills new memory with NaN
    try:
        first = emulate(ops, inputs, grad=grad)
        for order in ('reverse', 'random'):
            ops.set_order(FIBER_ORDERS[order], True)
            again = emulate(ops, inputs, grad=grad)
            assert all(torch.equal(a, b) for a, b in zip(first, again))
        compare(ops, make_inputs(tokens=70, lowest=-1), 1e-9)
    finally:
        torch.use_deterministic_algorithms(False)


def test_too_much_shared_memory_is_refused(ops):
    inputs = make_inputs(tokens=2, rank=900)
    with pytest.raises(RuntimeError, match='of rank 900 need .* bytes of sha'):
        emulate(ops, inputs)


def test_fewer_threads_where_memory_is_short(ops):
    """Rank 100 in float64 leaves room for a block of 96 or 64 channels."""
    compare(ops, make_inputs(tokens=17, channels=128, rank=100), 1e-9)


class TestEmulator:
    """It shows the faults it is there to show."""

    def test_correct_kernel(self, ops):
        for order in FIBER_ORDERS.values():
            ops.set_order(order, False)
            want = torch.arange(64.0).flip(0)
            assert torch.equal(ops.broken('none'), want)

    def test_missing_barrier(self, ops):
        forward = ops.broken('no barrier')
        ops.set_order(FIBER_ORDERS['reverse'], False)
        assert not torch.equal(forward, ops.broken('no barrier'))

    def test_reading_what_nobody_wrote(self, ops):
        assert ops.broken('unwritten').isnan().sum() == 1

    @pytest.mark.parametrize(
        'fault, message',
        [
            ('early return', 'others of their block skip'),
            ('another barrier', 'different barriers'),
            ('overrun', 'past the shared memory'),
        ],
    )
    def test_errors(self, ops, fault, message):
        with pytest.raises(RuntimeError, match=message):
            ops.broken(fault)


def test_a_missing_kernel_leaves_no_error_behind(ops):
    """Or PyTorch's next call would report it again."""
    ops.check_launch(0)
    with pytest.raises(RuntimeError, match='no kernels for this GPU'):
        ops.check_launch(209)  # cudaErrorNoKernelImageForDevice
    assert ops.last_error() == 0
