"""The frame of the mixers: what is around a scan, its memory, its scan."""

import json

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mmssm.layers import SS2D, SSD2D, MapMixer, StructureAwareSSM, slices


class RowMeans(MapMixer):
    """A mixer whose scan is the mean of each row, as a user would write it."""

    def __init__(self, embed_dims, inner_dims, **options):
        super().__init__(embed_dims, inner_dims, **options)
        self.scale = nn.Parameter(torch.randn(inner_dims))
        self.build_output()

    def scan(self, x):
        return self.scale * x.mean(2, keepdim=True).expand_as(x)


def formula(mixer, x):
    """What a :class:`RowMeans` computes."""
    values = mixer.in_proj(x)
    values = mixer.conv2d(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    values = mixer.act(values)
    y = mixer.out_norm(values.mean(2, keepdim=True) * mixer.scale)
    y = y.expand_as(values)
    if mixer.gate_proj is not None:
        y = y * mixer.act(mixer.gate_proj(x))
    return mixer.out_proj(y)


@pytest.mark.parametrize('act', ['SiLU', 'GELU'])
@pytest.mark.parametrize('gate', [False, True])
@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
def test_new_mixer_is_its_scan_in_the_frame(device, size, gate, act):
    torch.manual_seed(0)
    mixer = RowMeans(6, 10, gate=gate, act=act, conv_bias=True)
    mixer = mixer.double().to(device)
    x = torch.randn(2, *size, 6).double().to(device).requires_grad_()
    got, want = mixer(x), formula(mixer, x)
    torch.testing.assert_close(got, want)
    leaves = [x, *mixer.parameters()]
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), leaves),
        torch.autograd.grad((want * weight).sum(), leaves),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('gate', [False, True])
def test_inference_in_slices_gives_the_same(monkeypatch, gate):
    torch.manual_seed(0)
    mixer = RowMeans(6, 10, gate=gate).double()
    x = torch.randn(2, 9, 7, 6).double()
    monkeypatch.setattr(slices, 'SLICE_BYTES', 1000)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), formula(mixer, x))


@pytest.mark.parametrize(
    'options, names',
    [
        (dict(), []),
        (dict(conv_bias=True), ['conv2d.bias']),
    ],
)
def test_names_that_files_rely_on(options, names):
    mixer = RowMeans(6, 10, gate=True, **options)
    shapes = {k: tuple(v.shape) for k, v in mixer.state_dict().items()}
    assert shapes == {
        'scale': (10,),
        'in_proj.weight': (10, 6),
        'gate_proj.weight': (10, 6),
        'conv2d.weight': (10, 1, 3, 3),
        'out_norm.weight': (10,),
        'out_norm.bias': (10,),
        'out_proj.weight': (6, 10),
        **{name: (10,) for name in names},
    }


def test_result_of_a_scan_may_be_float32(device):
    """Where the model's weights have 16 bits."""

    class Wide(RowMeans):
        def scan(self, x):
            return 1e6 * super().scan(x).float()

    torch.manual_seed(0)
    mixer = Wide(6, 10, gate=True)
    x = torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        want = mixer(x)
        with torch.autocast(device.type, dtype=torch.float16):
            got = mixer.to(device)(x.to(device))
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.cpu().float(), want, rtol=0.05, atol=0.05)


@pytest.mark.parametrize('num_routes', [(), (1,), (4,)])
@pytest.mark.parametrize('ssm_init', ['s4d', 'uniform'])
def test_parameters_of_selective_scans(num_routes, ssm_init):
    torch.manual_seed(0)
    mixer = MapMixer(320, 400)
    mixer.build_recurrence(*num_routes, d_state=3, ssm_init=ssm_init)
    total = sum(num_routes) or 1
    own = dict(mixer.named_parameters())
    for name, shape in dict(
        x_proj_weight=(*num_routes, 20 + 2 * 3, 400),
        dt_projs_weight=(*num_routes, 400, 20),
        dt_projs_bias=(*num_routes, 400),
        A_logs=(total * 400, 3),
        Ds=(total * 400,),
    ).items():
        assert own[name].shape == shape, name
    assert mixer.dt_rank == 20 and (mixer.Ds == 1).all()
    assert mixer.x_proj_weight.abs().max() <= 400**-0.5
    if ssm_init == 's4d':
        rates = torch.arange(1.0, 4).expand(total * 400, 3)
        torch.testing.assert_close(mixer.A_logs.exp(), rates)
        assert mixer.dt_projs_weight.min() < -0.9 * 20**-0.5
        delta = nn.functional.softplus(mixer.dt_projs_bias)
        assert 0.99e-3 <= delta.min() and delta.max() <= 0.101
        return
    assert (mixer.A_logs == 0).all()
    for values in (mixer.dt_projs_weight, mixer.dt_projs_bias):
        assert 0 <= values.min() and values.max() <= 0.1
        assert values.mean().item() == pytest.approx(0.05, rel=0.1)


def test_a_scan_must_be_written():
    mixer = MapMixer(6, 10)
    mixer.build_output()
    with pytest.raises(NotImplementedError):
        mixer(torch.zeros(1, 2, 2, 6))


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


@pytest.mark.parametrize('mixer', [SS2D, SSD2D, StructureAwareSSM])
def test_float16_sums_stay_finite(device, mixer):
    """A sum over routes or tokens may pass float16's largest number."""
    layer = mixer(32).to(device)
    layer.Ds.data.fill_(3e5)
    x = torch.randn(1, 4, 4, 32).to(device)
    with torch.autocast(device.type, dtype=torch.float16), torch.no_grad():
        assert layer(x).isfinite().all()
