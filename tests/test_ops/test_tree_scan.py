"""The tree scan against its reference, sums over pairs, and other scans."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import move
from tree_inputs import binary, leaves, make_inputs, path, random_tree, star

from mmssm.ops import (
    routed_selective_scan,
    tree_order,
    tree_scan,
    tree_scan_reference,
)

SCANS = [tree_scan, tree_scan_reference]
TREES = dict(path=path, star=star, binary=binary, random=random_tree)


def run(scan, inputs, **options):
    """The result, and the gradient of every input."""
    y = scan(**inputs, **options)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    weight = weight.to(y.device)
    # Of one token without edges, A may have none in the reference.
    return y, torch.autograd.grad(
        y, leaves(inputs), weight, materialize_grads=True
    )


def compare(inputs, forward, backward, device, **options):
    """Errors at most these shares of the largest value."""
    got, grads = run(tree_scan, move(inputs, device), **options)
    want, wanted = run(tree_scan_reference, inputs, **options)
    limits = [forward] + [backward] * len(grads)
    for a, b, limit in zip([got, *grads], [want, *wanted], limits):
        assert a.dtype == b.dtype and a.shape == b.shape
        largest = float(b.detach().abs().max()) if b.numel() else 0
        assert a.device.type == device.type
        torch.testing.assert_close(
            a.cpu(), b, rtol=0, atol=limit * max(1, largest)
        )


def transitions_and_values(inputs):
    """w and v (B, L, C) as the docstring writes them, softplus on."""
    raw = inputs['dt'] @ inputs['dt_weight'].T + inputs['dt_bias']
    delta = torch.log(1 + torch.exp(raw))
    v = delta * inputs['B'].unsqueeze(-1) * inputs['x']
    return torch.exp(delta * inputs['A']), v


@pytest.mark.parametrize('scan', SCANS)
@pytest.mark.parametrize('tree', TREES)
def test_a_state_sums_all_tokens_times_the_path_to_them(device, scan, tree):
    inputs = make_inputs(TREES[tree](12))
    w, v = transitions_and_values(inputs)
    parents = inputs['parents'].tolist()

    def edges_to_root(token):
        edges = set()
        while parents[token] >= 0:
            edges.add(token)
            token = parents[token]
        return edges

    want = torch.zeros_like(v)
    for i in range(12):
        for j in range(12):
            path = edges_to_root(i) ^ edges_to_root(j)
            want[:, i] += v[:, j] * w[:, sorted(path)].prod(1)
    got = scan(**move(inputs, device)).cpu()
    torch.testing.assert_close(got, want)


def test_a_path_is_two_selective_scans(device):
    """Forward and backward ones, less the own value that both have."""
    inputs = move(make_inputs(path(20), rank=0), device)
    x, A, B = inputs['x'], inputs['A'], inputs['B']
    delta = torch.log(1 + torch.exp(inputs['dt'] + inputs['dt_bias']))

    def states(x, delta, order):
        return routed_selective_scan(
            x,
            delta.unsqueeze(2),
            A.view(1, -1, 1),
            B.view(*B.shape, 1, 1),
            routes=order.unsqueeze(0),
            delta_softplus=False,
            output='states',
        ).view(x.shape)

    # a_i = exp(delta_i A) a_{i-1} + delta_i B_i x_i
    order = torch.arange(20, device=device)
    there = states(x, delta, order)
    # b_i = exp(delta_{i+1} A) b_{i+1} + delta_i B_i x_i: the edge is the
    # child's. The last token's transition is not used.
    child = torch.cat([delta[:, 1:], delta[:, -1:]], 1)
    back = states(x * delta / child, child, order.flip(0))
    want = there + back - delta * B.unsqueeze(-1) * x
    torch.testing.assert_close(tree_scan(**inputs), want)


@settings(max_examples=80)
@given(
    tree=st.sampled_from(list(TREES)),
    tokens=st.sampled_from([1, 2, 3, 9, 63, 64, 65, 130]),
    batch=st.integers(0, 3),
    channels=st.sampled_from([0, 1, 5, 31, 32, 33, 70]),
    rank=st.sampled_from([0, 1, 7]),
    bias=st.booleans(),
    softplus=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_shape(
    device, tree, tokens, batch, channels, rank, bias, softplus, dtype
):
    inputs = make_inputs(
        TREES[tree](tokens), batch, channels, rank, bias, dtype
    )
    if not softplus:  # steps are not negative
        inputs['dt'] = inputs['dt'].detach().abs().requires_grad_()
        if rank:
            weight = inputs['dt_weight'].detach().abs()
            inputs['dt_weight'] = weight.requires_grad_()
        inputs.pop('dt_bias', None)
    limit = 1e-12 if dtype == torch.float64 else 2e-5
    compare(inputs, limit, limit, device, delta_softplus=softplus)


@settings(max_examples=40)
@given(
    tokens=st.integers(1, 150),
    reach=st.sampled_from([None, 1, 2, 10]),
    seed=st.integers(0, 2**31),
)
def test_any_tree(device, tokens, reach, seed):
    """Chains with branches here and there, at every place of a chunk."""
    inputs = make_inputs(random_tree(tokens, reach, seed))
    compare(inputs, 1e-12, 1e-12, device)


@pytest.mark.parametrize('tree', [path(900), random_tree(900, 3)])
def test_long_trees(device, tree):
    inputs = make_inputs(tree, 3, 100, 6, dtype=torch.float32)
    compare(inputs, 1e-5, 1e-4, device)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tokens(device, dtype):
    """Tokens are read as they are; math and sums are float32."""
    inputs = make_inputs(random_tree(70, 4), channels=20, dtype=dtype)
    compare(inputs, 1e-2, 2e-2, device)
    inputs = move(inputs, device)
    y = tree_scan(**inputs, out_dtype=torch.float32)
    wide = {
        name: t.float() if t.is_floating_point() else t
        for name, t in inputs.items()
    }
    assert y.dtype == torch.float32
    # On a GPU these are two kernels, which may round differently.
    limit = 0 if device.type == 'cpu' else 1e-5
    torch.testing.assert_close(y, tree_scan(**wide), rtol=0, atol=limit)


@pytest.mark.parametrize('scan', SCANS)
def test_sums_pass_the_largest_float16(device, scan):
    """Values that do not decay add up; the result is float32."""
    inputs = make_inputs(path(50), dtype=torch.float16)
    inputs['x'] = torch.full_like(inputs['x'], 2e4)
    inputs['B'] = torch.ones_like(inputs['B'])
    inputs['A'] = torch.zeros_like(inputs['A'])
    inputs = move(inputs, device)
    assert scan(**inputs, out_dtype=torch.float16).isinf().all()
    for out_dtype in (None, torch.float32):
        wide = scan(**inputs, out_dtype=out_dtype)
        assert wide.dtype == torch.float32
        assert wide.isfinite().all() and wide.min() > 65504


@pytest.mark.parametrize('rank', [0, 2])
@pytest.mark.parametrize('tree', TREES)
def test_gradcheck(device, tree, rank):
    inputs = move(make_inputs(TREES[tree](7), 2, 2, rank), device)
    names = list(inputs)[:-1]

    def scan(*tensors):
        given = dict(zip(names, tensors))
        return tree_scan(**given, parents=inputs['parents'])

    assert torch.autograd.gradcheck(scan, leaves(inputs))


def test_the_reference_has_second_derivatives():
    inputs = make_inputs(random_tree(4), 1, 2, 0, False)
    assert torch.autograd.gradgradcheck(
        lambda x, dt, A, B: tree_scan_reference(
            x, dt, A, B, parents=inputs['parents']
        ),
        leaves(inputs),
    )


@pytest.mark.parametrize('rank, bias', [(0, False), (3, True)])
def test_opcheck(device, rank, bias):
    inputs = make_inputs(random_tree(9), rank=rank, bias=bias)
    inputs = move(inputs, device)
    names = 'x dt A B dt_weight dt_bias'.split()
    tensors = [inputs.get(name) for name in names]
    ops = torch.ops.mmssm
    order = tree_order(inputs['parents'])
    torch.library.opcheck(ops.tree_scan.default, (*tensors, order))
    constant = [None if t is None else t.detach() for t in tensors]
    torch.library.opcheck(
        ops._tree_scan_backward.default,
        (torch.randn_like(constant[0]), *constant, order, True),
    )
    torch.library.opcheck(ops.tree_order.default, (inputs['parents'],))


class Scan(torch.nn.Module):
    def forward(self, x, dt, A, B, dt_weight, dt_bias, parents):
        return tree_scan(
            x, dt, A, B, parents=parents, dt_weight=dt_weight, dt_bias=dt_bias
        )


@pytest.mark.parametrize('given_as', ['parents', 'order'])
def test_compiles_and_exports(device, given_as):
    inputs = make_inputs(random_tree(9), dtype=torch.float32)
    inputs = move(inputs, device)
    want, wanted = run(tree_scan, inputs)
    if given_as == 'order':
        inputs['parents'] = tree_order(inputs['parents'])
    constant = tuple(t.detach() for t in inputs.values())
    exported = torch.export.export(Scan(), constant).module()
    torch.testing.assert_close(exported(*constant), want.detach())
    compiled = torch.compile(Scan(), backend='aot_eager', fullgraph=True)
    y, grads = run(lambda **given: compiled(*given.values()), inputs)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(grads, wanted)


def test_meta_tensors_give_shapes():
    inputs = make_inputs(path(9), dtype=torch.bfloat16)
    moved = {name: t.to('meta') for name, t in inputs.items()}
    y = tree_scan(**moved, out_dtype=torch.float32)
    assert y.is_meta and y.shape == (2, 9, 5) and y.dtype == torch.float32


@pytest.mark.parametrize('scan', SCANS)
def test_autocast_keeps_maths_in_float32(device, scan):
    inputs = make_inputs(random_tree(9), dtype=torch.float32)
    inputs = move(inputs, device)
    want = scan(**inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(scan(**inputs), want, rtol=0, atol=0)


def test_views_are_not_read_wrongly(device):
    """dt and B may be parts of a projection, x a transposed map."""
    inputs = move(make_inputs(random_tree(9)), device)
    want = tree_scan(**inputs)
    projected = torch.cat([inputs['dt'], inputs['B'].unsqueeze(-1)], -1)
    views = {
        **inputs,
        'x': inputs['x'].transpose(1, 2).contiguous().transpose(1, 2),
        'dt': projected[..., :3],
        'B': projected[..., 3],
        'A': inputs['A'].repeat_interleave(2)[::2],
        'dt_weight': inputs['dt_weight'].T.contiguous().T,
    }
    torch.testing.assert_close(tree_scan(**views), want, rtol=0, atol=0)


@pytest.mark.parametrize('batch', [1, 3])
def test_same_result_every_run_and_near_for_any_number_of_threads(batch):
    inputs = make_inputs(
        random_tree(200, 5), batch, 70, 4, dtype=torch.float32
    )
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            first, again = (run(tree_scan, inputs) for _ in range(2))
            assert all(
                torch.equal(a, b)
                for a, b in zip([first[0], *first[1]], [again[0], *again[1]])
            )
            results.append([first[0], *first[1]])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            largest = float(b.detach().abs().max())
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * largest)


def test_derivatives_that_are_missing_are_refused(device):
    inputs = move(make_inputs(random_tree(5)), device)
    (g,) = torch.autograd.grad(
        tree_scan(**inputs).sum(), inputs['x'], create_graph=True
    )
    with pytest.raises(RuntimeError, match='no second derivative'):
        g.sum().backward()
    x = inputs.pop('x').detach()
    with pytest.raises(RuntimeError, match='no forward-mode derivative'):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tree_scan(dual, **inputs)


CYCLE = torch.tensor([-1, 0, 1, 2, 6, 4, 5, 0, 7])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(x=torch.zeros(2, 9)), r'x must be \(B, L, C\)'),
        (dict(x=torch.zeros(2, 9, 5).int()), 'x must be float64, float32'),
        (dict(x=torch.zeros(2, 8, 5)), r'parents must have shape \(L\)'),
        (dict(A=torch.zeros(5, 1)), r'A must have shape \(C\)'),
        (dict(B=torch.zeros(2, 9, 1)), r'B must have shape \(B, L\)'),
        (dict(dt=torch.zeros(2, 9, 2)), r'dt must have shape \(B, L, R\)'),
        (dict(dt_weight=None), r'dt must have shape \(B, L, C\)'),
        (dict(dt_weight=torch.zeros(4, 3)), r'dt_weight must have shape \(C'),
        (dict(dt_weight=torch.tensor(1.0)), r'dt_weight must have shape'),
        (
            dict(dt=torch.zeros(2, 9, 0), dt_weight=torch.zeros(5, 0)),
            'dt_weight needs at least one column',
        ),
        (dict(dt_bias=torch.zeros(1, 5)), r'dt_bias must have shape \(C\)'),
        (dict(out_dtype=torch.int32), 'out_dtype must be floating-point'),
        (dict(parents=path(9).float()), r'parents must be \(L,\) int32'),
        (dict(parents=path(9).view(9, 1, 1)), r'parents must be \(L,\) int32'),
        (dict(parents=torch.zeros(0).int()), 'exactly one root.*got 0 in 0'),
        (dict(parents=torch.zeros(9).int()), 'exactly one root.*got 0 in 9'),
        (dict(parents=-torch.ones(9).int()), 'exactly one root.*got 9 in 9'),
        (dict(parents=path(9) * 2 + 1), r'0 to L - 1 = 8.*got -1 to 15'),
        (dict(parents=torch.tensor([-1, *[-2] * 8])), 'got -2 to -1'),
        (dict(parents=CYCLE), 'no tree: 3 tokens, 4 the first'),
        (dict(parents=tree_order(path(8))), r'parents must have shape \(L\)'),
    ],
)
@pytest.mark.parametrize('scan', SCANS)
def test_wrong_input_says_what_was_expected(device, change, message, scan):
    inputs = move({**make_inputs(random_tree(9)), **change}, device)
    with pytest.raises(RuntimeError, match=f'^tree_scan: .*{message}'):
        scan(**inputs)


@pytest.mark.parametrize(
    'order',
    [
        torch.tensor([[0, 1, 2, 3]], dtype=torch.int32),
        torch.tensor([[0, 1, 2, 3], [-1, 0, 1, 2]]),
    ],
)
def test_native_op_checks_the_orders_shape(device, order):
    inputs = move({**make_inputs(path(4)), 'parents': order}, device)
    with pytest.raises(RuntimeError, match=r'must be \(2, L\) int32'):
        tree_scan(**inputs)


# On a GPU a kernel finds them, whose assertion ends the process's use of it.
@pytest.mark.parametrize(
    'order, message',
    [
        ([[0, 1, 2, 4], [-1, 0, 1, 2]], 'every token once'),
        ([[-1, 0, 1, 2], [-1, 0, 1, 2]], 'every token once'),
        ([[0, 1, 2, 1], [-1, 0, 1, 2]], 'every token once'),
        ([[0, 1, 2, 3], [0, 0, 1, 2]], 'after its parent'),
        ([[0, 1, 2, 3], [-1, -1, 1, 2]], 'after its parent'),
        ([[0, 1, 2, 3], [-1, 0, 2, 1]], 'after its parent'),
    ],
)
def test_native_op_checks_the_order(order, message):
    given = torch.tensor(order, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message):
        tree_scan(**{**make_inputs(path(4)), 'parents': given})


def test_native_backward_checks_the_gradient(device):
    inputs = move(make_inputs(path(4), rank=0, bias=False), device)
    tensors = [t.detach() for t in leaves(inputs)]
    with pytest.raises(RuntimeError, match=r'grad must have shape \(B, L, C'):
        torch.ops.mmssm._tree_scan_backward(
            torch.zeros(2, 5, 4, device=device),
            *tensors,
            None,
            None,
            tree_order(path(4)).to(device),
            True,
        )


@pytest.mark.parametrize('kind', [torch.int32, torch.int64])
@pytest.mark.parametrize('tree', TREES)
def test_order_has_parents_first_and_chains_together(tree, kind):
    parents = TREES[tree](40).to(kind)
    order = tree_order(parents)
    assert order.dtype == torch.int32
    tokens, steps = order.tolist()
    assert sorted(tokens) == list(range(40))
    for step, parent in enumerate(steps):
        assert parent < step
        want = tokens[parent] if step else -1
        assert parents[tokens[step]] == want
    # Depth first: but one child of each token comes right after it.
    inner = len(set(steps)) - 1
    assert sum(p == t - 1 for t, p in enumerate(steps) if t) == inner


def test_order_follows_a_change(device):
    parents = path(30).to(device)
    order = tree_order(parents)
    assert torch.equal(tree_order(parents), order)
    parents.copy_(star(30))
    assert tree_order(parents)[1].tolist() == [-1] + [0] * 29
    with torch.inference_mode():
        inside = path(30).to(device)
        assert torch.equal(tree_order(inside), order)
        inside.copy_(star(30))
        assert tree_order(inside)[1].tolist() == [-1] + [0] * 29


def test_order_follows_a_change_that_pytorch_does_not_see():
    """A tree for each image, in one buffer."""
    buffer = path(30).numpy()
    parents = torch.from_numpy(buffer)
    tree_order(parents)
    buffer[:] = star(30).numpy()
    assert tree_order(parents)[1].tolist() == [-1] + [0] * 29
    parents.data.copy_(path(30))
    assert tree_order(parents)[1].tolist() == list(range(-1, 29))


def test_order_found_in_inference_mode_serves_in_training(device):
    inputs = move(make_inputs(random_tree(9, seed=5)), device)
    with torch.inference_mode():
        tree_order(inputs['parents'])
    tree_scan(**inputs).sum().backward()
    assert inputs['x'].grad.abs().sum() > 0


def test_an_order_given_is_used_as_the_parents_are(device):
    inputs = move(make_inputs(random_tree(20)), device)
    for scan in SCANS:
        want = scan(**inputs)
        given = {**inputs, 'parents': tree_order(inputs['parents'])}
        torch.testing.assert_close(scan(**given), want, rtol=0, atol=0)


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_every_instruction_set(capability):
    """The processor's best set serves above; here the lesser ones do."""
    some = 'gradcheck or long_trees or 16_bit or any_tree'
    subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', __file__, '-k', some]
        + ['-m', 'not cuda'],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        check=True,
    )
