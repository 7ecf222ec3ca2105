"""The mixers against their definition on explicit route copies."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from mmssm.layers import SS2D, SSD2D, slices
from mmssm.ops import selective_scan_reference
from mmssm.scans import CROSS, routes


def scan_copies(mixer, x, height, width):
    """SS2D's scan as VMamba describes it: copy, scan and merge each route."""
    num_routes, rows, inner = mixer.x_proj_weight.shape
    total = torch.zeros_like(x)
    A = -mixer.A_logs.exp().view(num_routes, inner, -1)
    D = mixer.Ds.view(num_routes, inner)
    for k, route in enumerate(routes(CROSS, height, width).long()):
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
        total[:, route] += y
    return total


@pytest.mark.parametrize('d_state', [1, 4])
@pytest.mark.parametrize('size', [(1, 1), (3, 5), (7, 4)])
def test_scan_equals_copy_scan_merge(device, d_state, size):
    torch.manual_seed(0)
    mixer = SS2D(32, d_state=d_state, ssm_ratio=2.0).double()
    x = torch.randn(2, size[0] * size[1], 64, dtype=torch.float64)
    with torch.no_grad():
        want = scan_copies(mixer, x, *size)
        got = mixer.to(device).scan(x.to(device), *size)
    torch.testing.assert_close(got.cpu(), want)


@pytest.mark.parametrize('mixer', [SS2D, SSD2D])
def test_transposed_map_and_routes_give_the_transposed_result(device, mixer):
    """Swapping h with v undoes a transposition of the map."""
    torch.manual_seed(0)
    one = mixer(32).double().eval()
    other = mixer(32, route_names=('v', 'h', 'v_flip', 'h_flip'))
    other.double().eval().load_state_dict(one.state_dict())
    other.conv2d.weight.data = one.conv2d.weight.data.transpose(2, 3)
    one, other = one.to(device), other.to(device)
    x = torch.randn(1, 3, 5, 32, dtype=torch.float64).to(device)
    with torch.no_grad():
        want = one(x).transpose(1, 2)
        got = other(x.transpose(1, 2))
    # SSD2D computes its scan in float32.
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="ssm_init must be 's4d'"):
        SS2D(32, ssm_init='v0')
    with pytest.raises(ValueError, match='do not divide into 3 heads'):
        SSD2D(40, ssm_ratio=0.5)
    with pytest.raises(ValueError, match="unknown route 'hh'"):
        SS2D(32, route_names=('hh', 'v'))


@pytest.mark.parametrize('mixer', [SS2D, SSD2D])
def test_float16_sums_stay_finite(device, mixer):
    """The sum over routes may pass float16's largest number."""
    layer = mixer(32).to(device)
    layer.Ds.data.fill_(3e5)
    x = torch.randn(1, 4, 4, 32).to(device)
    with torch.autocast(device.type, dtype=torch.float16), torch.no_grad():
        assert layer(x).isfinite().all()


def peak_bytes(function, path):
    """Most bytes that were allocated at once while ``function`` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        function()
    p.export_chrome_trace(str(path))
    events = [
        (event['ts'], event['args']['Bytes'])
        for event in json.loads(path.read_text())['traceEvents']
        if event['name'] == '[memory]'
    ]
    live = peak = 0
    for _, change in sorted(events, key=lambda event: event[0]):
        live += change
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    'fields',
    [
        dict(),
        dict(ssm_ratio=2.0),
        dict(d_state=16, ssm_ratio=2.0, gate=True, conv_bias=True),
    ],
)
def test_memory_of_a_forward(monkeypatch, tmp_path, fields):
    """Never more than two maps (B, L, inner) beside the projected weights.

    Those hold K * (R + 2 N) numbers per token.
    """
    monkeypatch.setattr(slices, 'SLICE_BYTES', 2**16)
    mixer = SS2D(96, **fields).eval()
    x = torch.randn(2, 48, 40, 96)
    num_routes, rows, inner = mixer.x_proj_weight.shape
    map_bytes = 4 * 2 * 48 * 40 * inner
    projected_bytes = 4 * 2 * 48 * 40 * num_routes * rows
    with torch.inference_mode():
        mixer(x)  # caches the routes
        peak = peak_bytes(lambda: mixer(x), tmp_path / 'trace.json')
    assert 2 * map_bytes <= peak
    assert peak <= 2.1 * map_bytes + projected_bytes
