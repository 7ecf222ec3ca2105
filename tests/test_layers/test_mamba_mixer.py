"""The 1-D mixer against its definition, one route and one step at a time."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import MambaMixer
from mmssm.scans import register_sized_route
from mmssm.scans.route import _SIZED_ROUTES

EMBED_DIMS, INNER, STATES = 20, 24, 3
ROUTES = 'h v_flip w2 w3_flip'
CASES = {
    'rows-and-columns': dict(routes='h h_flip v v_flip'),
    'windows-that-leave-the-map': dict(routes='w2 w2_flip w3 w7_flip'),
    'whole-windows': dict(routes='w2 w3_flip h', size=(6, 6)),
    'one-token': dict(routes='h v_flip w2_flip', size=(1, 1)),
    'one-row': dict(routes=ROUTES, size=(1, 7)),
    'one-column': dict(routes=ROUTES, size=(7, 1)),
    'fewer-tokens-than-conv-size': dict(routes=ROUTES, size=(1, 2)),
    'one-route': dict(routes='w2'),
    'class-token': dict(routes=ROUTES, class_token=True),
    'class-token-even-map': dict(routes=ROUTES, class_token=True, size=(4, 2)),
    'class-token-alone': dict(routes='v', class_token=True, size=(1, 1)),
    'released': dict(routes='h v v_flip w2', released=True),
    'released-square': dict(routes='v v_flip', released=True, size=(3, 3)),
    'released-class-token': dict(
        routes='h_flip v v_flip w3_flip', released=True, class_token=True
    ),
    'released-class-token-even-map': dict(
        routes='v_flip v', released=True, class_token=True, size=(2, 5)
    ),
    'search': dict(routes='h h_flip v v_flip w2 w2_flip', merge='searched'),
    'vim': dict(routes='h h_flip', merge='mean', size=(1, 9)),
    'conv-size-3': dict(routes=ROUTES, conv_size=3),
}


def mixer_of(
    routes=ROUTES,
    merge='gated',
    class_token=False,
    released=False,
    size=(3, 5),
    conv_size=4,
):
    """A small float64 mixer, its weights far from their initial ones."""
    torch.manual_seed(0)
    mixer = MambaMixer(
        EMBED_DIMS,
        routes,
        merge,
        d_state=STATES,
        ssm_ratio=INNER / EMBED_DIMS,
        conv_size=conv_size,
        class_token=class_token,
    )
    mixer.released_inverse = released
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer.double()


def tokens_for(size, class_token=False, batch=2):
    tokens = size[0] * size[1] + class_token
    return torch.randn(batch, tokens, EMBED_DIMS, dtype=torch.float64)


def patches_in_order(name, height, width):
    """Numbers of the patches that a route visits; None for a zero token."""
    base = name.removesuffix('_flip')
    if base == 'h':
        order = list(range(height * width))
    elif base == 'v':
        order = [i * width + j for j in range(width) for i in range(height)]
    else:
        side = int(base[1:])
        order = [
            i * width + j if i < height and j < width else None
            for top in range(0, height, side)
            for left in range(0, width, side)
            for i in range(top, top + side)
            for j in range(left, left + side)
        ]
    return order if base == name else order[::-1]


def read(values, patches, class_token):
    """The tokens (B, C) that a route visits, the class token in the middle."""
    zero = torch.zeros_like(values[:, 0])
    if not class_token:
        return [zero if p is None else values[:, p] for p in patches]
    middle = (values.shape[1] - 1) // 2
    rest = torch.cat([values[:, :middle], values[:, middle + 1 :]], 1)
    visited = [zero if p is None else rest[:, p] for p in patches]
    return [*visited[:middle], values[:, middle], *visited[middle:]]


def put_back(results, name, patches, height, width, class_token, released):
    """The results (B, C) of a route's steps as tokens (B, L, C)."""
    middle = height * width // 2
    if class_token:
        token = results[middle]
        results = results[:middle] + results[middle + 1 :]
    if released and name in ('v', 'v_flip'):
        # As LocalMamba's code undoes columns: right for square maps alone.
        results = results if name == 'v' else results[::-1]
        grid = torch.stack(results, 1).unflatten(1, (height, width))
        back = list(grid.transpose(1, 2).flatten(1, 2).unbind(1))
    else:
        step = {patch: step for step, patch in enumerate(patches)}
        back = [results[step[patch]] for patch in range(height * width)]
    if class_token:
        back = [*back[:middle], token, *back[middle:]]
    return torch.stack(back, 1)


def recurrence(mixer, k, sequence):
    """Convolution and selective scan of (B, T, C) with route k's weights."""
    batch, steps, inner = sequence.shape
    conv_size = mixer.conv_weight.shape[-1]
    u = F.silu(
        F.conv1d(
            F.pad(sequence.transpose(1, 2), (conv_size - 1, 0)),
            mixer.conv_weight[k].unsqueeze(1),
            mixer.conv_bias.view(-1, inner)[k],
            groups=inner,
        )
    ).transpose(1, 2)
    projected = F.linear(u, mixer.x_proj_weight[k])
    dt, B, C = projected.split([mixer.dt_rank, STATES, STATES], -1)
    step = F.softplus(
        F.linear(dt, mixer.dt_projs_weight[k])
        + mixer.dt_projs_bias.view(-1, inner)[k]
    ).unsqueeze(-1)
    A = -mixer.A_logs.view(-1, inner, STATES)[k].exp()
    state = u.new_zeros(batch, inner, STATES)
    results = []
    for t in range(steps):
        inflow = step[:, t] * B[:, t, None] * u[:, t, :, None]
        state = (step[:, t] * A).exp() * state + inflow
        results.append((state * C[:, t, None]).sum(-1))
    return torch.stack(results, 1) + mixer.Ds.view(-1, inner)[k] * u


def merged(merge, routes, kind):
    """The routes' results (B, L, C) as one."""
    if kind == 'mean':
        return sum(routes) / len(routes)
    gates = [
        merge.select(F.gelu(merge.reduce(merge.norm(y).mean(1, keepdim=True))))
        for y in routes
    ]
    routes = [y * gate.sigmoid() for y, gate in zip(routes, gates)]
    if kind == 'gated':
        return sum(routes)
    chances = merge.weights.exp() / merge.weights.exp().sum()
    routes = [F.layer_norm(y, y.shape[-1:]) for y in routes]
    return sum(chance * y for chance, y in zip(chances, routes))


def reference(mixer, x, size, merge='gated', released=False):
    """What a mixer computes, with nothing done for several routes at once."""
    class_token = x.shape[1] > size[0] * size[1]
    values, gate = mixer.in_proj(x), mixer.gate_proj(x)
    routes = []
    for k, name in enumerate(mixer.routes):
        patches = patches_in_order(name, *size)
        visited = torch.stack(read(values, patches, class_token), 1)
        results = list(recurrence(mixer, k, visited).unbind(1))
        y = put_back(results, name, patches, *size, class_token, released)
        routes.append(y * F.silu(gate))
    return mixer.out_proj(merged(mixer.merge, routes, merge))


@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_are_the_definitions(device, case):
    fields = CASES[case]
    size = fields.get('size', (3, 5))
    mixer = mixer_of(**fields)
    x = tokens_for(size, fields.get('class_token', False)).requires_grad_()
    weight = torch.randn_like(x)
    named = dict(mixer.named_parameters(), the_input=x)
    moved = copy.deepcopy(mixer).to(device)
    moved_x = x.detach().to(device).requires_grad_()
    y = moved(moved_x, *size)
    want = reference(
        mixer,
        x,
        size,
        fields.get('merge', 'gated'),
        fields.get('released', False),
    )
    torch.testing.assert_close(y.cpu(), want)
    leaves = [*moved.parameters(), moved_x]
    got = torch.autograd.grad((y * weight.to(device)).sum(), leaves)
    want = torch.autograd.grad((want * weight).sum(), list(named.values()))
    for name, a, b in zip(named, got, want, strict=True):
        assert b.abs().max() > 0, name
        torch.testing.assert_close(a.cpu(), b, msg=f'gradient of {name}')


@pytest.mark.parametrize('grad', [False, True])
def test_batch_items_do_not_mix(device, grad):
    mixer = mixer_of().to(device)
    x = tokens_for((3, 5), batch=3).to(device)
    with torch.set_grad_enabled(grad):
        whole = mixer(x, 3, 5)
        single = [mixer(x[i : i + 1], 3, 5) for i in range(3)]
        torch.testing.assert_close(whole, torch.cat(single))
        none = x[:0].clone().requires_grad_(grad)
        nothing = mixer(none, 3, 5)
    assert nothing.shape == (0, 15, EMBED_DIMS)
    if grad:
        nothing.sum().backward()
        assert none.grad.shape == none.shape
        assert (mixer.conv_weight.grad == 0).all()


def test_released_inverse_differs_on_maps_that_are_not_square(device):
    mixer = mixer_of('h v v_flip w2').to(device)
    for size, equal in (((4, 4), True), ((3, 5), False), ((1, 6), True)):
        x = tokens_for(size).to(device)
        mixer.released_inverse = False
        right = mixer(x, *size)
        mixer.released_inverse = True
        assert torch.allclose(mixer(x, *size), right) is equal


@pytest.fixture
def column_windows(monkeypatch):
    """Routes ``t<size>``: the windows of the transposed map."""
    windows = dict(w=_SIZED_ROUTES['w'])  # no others, whose name may be 't'
    monkeypatch.setattr('mmssm.scans.route._SIZED_ROUTES', windows)

    @register_sized_route('t')
    def transposed(height, width, size):
        route = _SIZED_ROUTES['w'](width, height, size)
        tokens = np.arange(height * width).reshape(height, width).T.ravel()
        return np.where(route < 0, -1, tokens[route])


@pytest.mark.parametrize('class_token', [False, True])
@pytest.mark.parametrize('size', [(3, 5), (7, 2), (4, 4)])
def test_transposed_map_and_routes_give_the_transposed_result(
    column_windows, size, class_token
):
    height, width = size
    names = ['h v_flip w2 w3_flip', 'v h_flip t2 t3_flip']
    one, other = (mixer_of(n, class_token=class_token) for n in names)
    other.load_state_dict(one.state_dict())
    x = tokens_for(size, class_token)
    order = torch.arange(height * width).view(size).t().flatten()
    if class_token:
        middle = height * width // 2
        order = order + (order >= middle)
        order = torch.cat(
            [order[:middle], torch.tensor([middle]), order[middle:]]
        )
    with torch.no_grad():
        want = one(x, height, width)
        got = other(x[:, order], width, height)
        torch.testing.assert_close(got, want[:, order])
        # The routes matter: with its own, the first gives something else.
        assert not torch.allclose(one(x[:, order], width, height), got)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('merge', ['mean', 'gated', 'searched'])
def test_autocast_and_16_bit_weights(device, dtype, merge):
    mixer = mixer_of(merge=merge, class_token=True).float()
    x = tokens_for((3, 5), class_token=True).float()
    with torch.no_grad():
        want = mixer(x, 3, 5)
        mixer, x = mixer.to(device), x.to(device)
        with torch.autocast(device.type, dtype=dtype):
            mixed = mixer(x, 3, 5)
        low = mixer.to(dtype)(x.to(dtype), 3, 5)
    for got in (mixed, low):
        assert got.dtype == dtype
        error = (got.cpu().float() - want).abs().max() / want.abs().max()
        assert error < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_float16_scans_stay_finite(device):
    """A sum over states may pass float16's largest number."""
    mixer = mixer_of().float().to(device)
    mixer.Ds.data.fill_(3e5)
    with torch.autocast(device.type, dtype=torch.float16), torch.no_grad():
        values = torch.randn(1, 15, INNER).half().to(device)
        results = mixer.scan(values, 3, 5)
    assert results.isfinite().all() and results.abs().max() > 65504


def test_initial_values_are_mambas():
    torch.manual_seed(0)
    mixer = MambaMixer(96, 'h h_flip', 'gated', out_proj_scale=0.25)
    assert mixer.dt_rank == 6 and mixer.out_proj.in_features == 192
    for weight, fan_in in (
        (mixer.in_proj.weight, 96),
        (mixer.gate_proj.weight, 96),
        (mixer.conv_weight, 4),
        (mixer.conv_bias, 4),
        (mixer.x_proj_weight, 192),
        (mixer.dt_projs_weight, 6),
        (4 * mixer.out_proj.weight, 192),
    ):
        bound = fan_in**-0.5
        assert 0.95 * bound <= weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    steps = F.softplus(mixer.dt_projs_bias)
    assert 0.99e-3 <= steps.min() and steps.max() <= 0.101
    assert 0.005 <= steps.median() <= 0.02  # even in the logarithm
    rates = torch.arange(1.0, 17).expand(2 * 192, 16)
    torch.testing.assert_close(mixer.A_logs.exp(), rates)
    assert (mixer.Ds == 1).all()


@pytest.mark.parametrize('merge', ['gated', 'searched', 'mean'])
def test_initial_values_with_a_standard_deviation_are_localmambas(merge):
    torch.manual_seed(0)
    mixer = MambaMixer(
        96, 'h h_flip', merge, out_proj_scale=0.25, init_std=0.02
    )
    linear = [m for m in mixer.merge.modules() if hasattr(m, 'in_features')]
    assert len(linear) == (0 if merge == 'mean' else 2)
    weights = [m.weight for m in (mixer.in_proj, mixer.gate_proj, *linear)]
    for weight in (*weights, mixer.x_proj_weight, mixer.dt_projs_weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert weight.abs().max() > 0.02 * 3**0.5  # normal, not uniform
    for bias in (*(m.bias for m in linear), mixer.dt_projs_bias):
        assert (bias == 0).all()
    bound = 192**-0.5 / 4  # the last projection keeps its own
    assert 0.95 * bound <= mixer.out_proj.weight.abs().max() <= bound
    assert 0.4 < mixer.conv_weight.abs().max() <= 0.5


@pytest.mark.parametrize('merge', ['gated', 'searched', 'mean'])
def test_weight_decay_can_tell_biases_by_their_axes(merge):
    """What OpenMMLab's and the originals' optimizers spare has one axis."""
    mixer = MambaMixer(32, 'h v', merge)
    spared = {n for n, p in mixer.named_parameters() if p.dim() == 1}
    names = {'conv_bias', 'dt_projs_bias', 'Ds'}
    if merge != 'mean':
        names |= {'merge.reduce.bias', 'merge.select.bias'}
        names |= {'merge.norm.weight', 'merge.norm.bias'}
    if merge == 'searched':
        names.add('merge.weights')
    assert spared == names


@pytest.mark.parametrize('harder', [False, True])
def test_compile_and_export_give_the_eager_result(device, harder):
    mixer = mixer_of(ROUTES, class_token=harder, released=harder).to(device)
    x = tokens_for((3, 5), harder).to(device)
    torch.compiler.reset()  # or those of other tests count, too
    with torch.no_grad():
        want = mixer(x, 3, 5)
        exported = torch.export.export(mixer, (x, 3, 5)).module()(x, 3, 5)
        compiled = torch.compile(mixer, fullgraph=True, backend='aot_eager')
        got = compiled(x, 3, 5)
    torch.testing.assert_close(exported, want)
    torch.testing.assert_close(got, want)


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="unknown route 'hh'"):
        MambaMixer(32, 'h hh', 'gated')
    with pytest.raises(ValueError, match="'mean', 'gated' or 'searched'"):
        MambaMixer(32, 'h', 'sum')
