"""SSD2D against the recurrence of Mamba-2, one token at a time."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import SSD2D
from mmssm.scans import routes


def scan_by_tokens(mixer, x):
    """The sum over routes of a map's (B, H, W, C) recurrences."""
    batch, height, width, inner = x.shape
    heads, states = mixer.num_heads, mixer.d_state
    tokens = x.flatten(1, 2)
    total = torch.zeros_like(tokens)
    for k, route in enumerate(routes(mixer.routes, height, width).tolist()):
        state = x.new_zeros(batch, heads, inner // heads, states)
        decay_rate = -mixer.A_logs[k].exp()
        for token in route:
            u = tokens[:, token]
            dt, B, C = F.linear(u, mixer.x_proj_weight[k]).split(
                [heads, states, states], -1
            )
            delta = F.softplus(dt + mixer.dt_projs_bias[k])
            u = u.view(batch, heads, -1)
            decay = (delta * decay_rate)[..., None, None].exp()
            added = (delta[..., None] * u)[..., None] * B[:, None, None]
            state = decay * state + added
            y = (state * C[:, None, None]).sum(-1) + mixer.Ds[k] * u
            total[:, token] += y.flatten(1)
    return total.view(x.shape)


@pytest.mark.parametrize('names', [('h',), ('h', 'v', 'h_flip', 'v_flip')])
@pytest.mark.parametrize('size', [(1, 1), (3, 5), (9, 8)])
def test_scan_equals_the_recurrence(device, size, names):
    torch.manual_seed(0)
    mixer = SSD2D(32, d_state=4, ssm_ratio=2.0, routes=names)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.randn(2, *size, 64)
        want = scan_by_tokens(mixer.double(), x.double())
        got = mixer.float().to(device).scan(x.to(device))
    assert got.dtype == torch.float32 and mixer.num_heads == 2
    torch.testing.assert_close(got.cpu().double(), want, rtol=1e-4, atol=1e-4)


def test_transposed_map_and_routes_give_the_transposed_result(device):
    """Swapping h with v undoes a transposition of the map."""
    torch.manual_seed(0)
    one = SSD2D(32).double().eval()
    other = SSD2D(32, routes=('v', 'h', 'v_flip', 'h_flip'))
    other.double().eval().load_state_dict(one.state_dict())
    other.conv2d.weight.data = one.conv2d.weight.data.transpose(2, 3)
    one, other = one.to(device), other.to(device)
    x = torch.randn(1, 3, 5, 32, dtype=torch.float64).to(device)
    with torch.no_grad():
        want = one(x).transpose(1, 2)
        got = other(x.transpose(1, 2))
    # The scan is computed in float32.
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(device):
    torch.manual_seed(0)
    mixer = SSD2D(32, conv_bias=True).to(device)
    y = mixer(torch.randn(2, 3, 5, 32).to(device))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match='do not divide into 3 heads'):
        SSD2D(40, ssm_ratio=0.5)
    with pytest.raises(ValueError, match="unknown route 'hh'"):
        SSD2D(32, routes=('hh', 'v'))


def test_64_bits_stay_64_bits():
    torch.manual_seed(0)
    mixer = SSD2D(32, d_state=4).double()
    x = torch.randn(1, 3, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        got = mixer.scan(x)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, scan_by_tokens(mixer, x))


def test_shapes_without_numbers():
    """On the device meta, which has no autocast."""
    with torch.device('meta'):
        y = SSD2D(32, d_state=4)(torch.empty(2, 3, 5, 32))
    assert y.shape == (2, 3, 5, 32)
