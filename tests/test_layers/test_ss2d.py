"""SS2D against its definition on explicit route copies."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import SS2D
from mmssm.layers.route_merge import GatedSum
from mmssm.ops import selective_scan_reference
from mmssm.scans import routes

ROUTES = 'h v_flip w2'


def scan_copies(mixer, x):
    """What each route gives, as VMamba describes it: (B, K, L, C).

    The map is copied in the route's order, zero tokens included, and
    scanned; the results are put back.
    """
    height, width = x.shape[1:3]
    x = F.pad(x.flatten(1, 2), (0, 0, 0, 1))  # the last one is a zero token
    num_routes, rows, inner = mixer.x_proj_weight.shape
    A = -mixer.A_logs.exp().view(num_routes, inner, -1)
    D = mixer.Ds.view(num_routes, inner)
    results = []
    for k, route in enumerate(routes(mixer.routes, height, width).long()):
        tokens = x[:, route]
        dt, B, C = F.linear(tokens, mixer.x_proj_weight[k]).split(
            [mixer.dt_rank, mixer.d_state, mixer.d_state], -1
        )
        y = selective_scan_reference(
            tokens.transpose(1, 2),
            F.linear(dt, mixer.dt_projs_weight[k]).transpose(1, 2),
            A[k],
            B.transpose(1, 2),
            C.transpose(1, 2),
            D[k],
            mixer.dt_projs_bias[k],
            delta_softplus=True,
        ).transpose(1, 2)
        result = torch.zeros_like(x)
        result[:, route] = y
        results.append(result[:, :-1])
    return torch.stack(results, 1)


@pytest.mark.parametrize('d_state', [1, 4])
@pytest.mark.parametrize('size', [(1, 1), (3, 5), (7, 4)])
def test_scan_equals_copy_scan_add(device, d_state, size):
    torch.manual_seed(0)
    mixer = SS2D(32, d_state=d_state, ssm_ratio=2.0).double()
    x = torch.randn(2, *size, 64, dtype=torch.float64)
    with torch.no_grad():
        want = scan_copies(mixer, x).sum(1).view(x.shape)
        got = mixer.to(device).scan(x.to(device))
    torch.testing.assert_close(got.cpu(), want)


@pytest.mark.parametrize('merge', ['mean', 'gated', 'searched'])
def test_merge_gets_every_routes_result(device, merge):
    torch.manual_seed(0)
    mixer = SS2D(32, routes=ROUTES, merge=merge).double()
    x = torch.randn(2, 3, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        want = mixer.merge(scan_copies(mixer, x)).view(x.shape)
        got = mixer.to(device).scan(x.to(device))
    torch.testing.assert_close(got.cpu(), want)


@pytest.mark.parametrize('size', [(3, 5), (4, 4)])
def test_released_inverse_mixes_up_columns(device, size):
    """As LocalMamba's code does: it transposes a height x width grid."""

    def transposed(y):
        return y.unflatten(1, size).transpose(1, 2).flatten(1, 2)

    torch.manual_seed(0)
    options = dict(routes='h v v_flip', merge='mean')
    right = SS2D(32, **options).double()
    released = SS2D(32, released_inverse=True, **options).double()
    released.load_state_dict(right.state_dict())
    x = torch.randn(2, *size, 32, dtype=torch.float64)
    with torch.no_grad():
        rows, *columns = scan_copies(right, x).unbind(1)
        columns = [transposed(transposed(y)) for y in columns]
        want = ((rows + sum(columns)) / 3).view(x.shape)
        got = released.to(device).scan(x.to(device)).cpu()
        plain = right.to(device).scan(x.to(device)).cpu()
    torch.testing.assert_close(got, want)
    assert torch.allclose(got, plain) is (size[0] == size[1])


def test_transposed_map_and_routes_give_the_transposed_result(device):
    """Swapping h with v undoes a transposition of the map."""
    torch.manual_seed(0)
    one = SS2D(32).double().eval()
    other = SS2D(32, routes=('v', 'h', 'v_flip', 'h_flip'))
    other.double().eval().load_state_dict(one.state_dict())
    other.conv2d.weight.data = one.conv2d.weight.data.transpose(2, 3)
    one, other = one.to(device), other.to(device)
    x = torch.randn(1, 3, 5, 32, dtype=torch.float64).to(device)
    with torch.no_grad():
        want = one(x).transpose(1, 2)
        got = other(x.transpose(1, 2))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_routes_share_one_gate():
    mixer = SS2D(32, routes=ROUTES, merge='gated')
    assert isinstance(mixer.merge, GatedSum)
    assert mixer.routes == ('h', 'v_flip', 'w2')
    assert mixer.x_proj_weight.shape[0] == 3


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="ssm_init must be 's4d'"):
        SS2D(32, ssm_init='v0')
    with pytest.raises(ValueError, match="unknown route 'hh'"):
        SS2D(32, routes=('hh', 'v'))
    with pytest.raises(ValueError, match="'mean', 'gated' or 'searched'"):
        SS2D(32, merge='sum')
