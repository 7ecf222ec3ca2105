"""Others' kernels, in stand-ins with the same arguments."""

import sys

import torch

from mmssm.analysis.benchmark import peers as benchmark_peers
from mmssm.analysis.benchmark import routed_selective_scan as benchmark_op
from mmssm.ops import selective_scan

FINDERS = (
    benchmark_peers.foreign_scans,
    benchmark_peers.foreign_compositions,
)


def gradients(compose, inputs):
    names = [n for n, t in inputs.items() if t.is_floating_point()]
    for name in names:
        inputs[name].requires_grad_()
    y = compose(**inputs)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y, torch.autograd.grad(y, [inputs[n] for n in names], weight)


def test_foreign_kernels_are_named_where_they_cannot_run(monkeypatch):
    scans, missing = benchmark_peers.foreign_scans(torch.device('cpu'))
    assert not scans
    assert missing == [
        'mamba-ssm: left out, it runs on CUDA only',
        "VMamba's kernel: left out, it runs on CUDA only",
    ]
    found, missing = benchmark_peers.foreign_compositions(torch.device('cpu'))
    assert not found and len(missing) == 1
    for name in ('mamba_ssm', 'selective_scan_cuda_oflex', 'csm_triton'):
        monkeypatch.setitem(sys.modules, name, None)
    for find in FINDERS:
        found, missing = find(torch.device('cuda'))
        assert not found and missing
        assert all('its import fails (' in line for line in missing)


class Kernel:
    """Stands in for VMamba's extension, with the arguments it takes."""

    @staticmethod
    def fwd(u, delta, A, B, C, D, delta_bias, softplus, nrows, out_float):
        assert nrows == 1 and out_float is True
        out = selective_scan(u, delta, A, B, C, D, delta_bias, softplus)
        return out.float(), torch.zeros(1)

    @staticmethod
    def bwd(u, delta, A, B, C, D, delta_bias, dout, x, softplus, nrows):
        assert nrows == 1 and x.shape == (1,) and dout.is_contiguous()
        inputs = [u, delta, A, B, C, D, delta_bias]
        inputs = [t.detach().requires_grad_() for t in inputs]
        with torch.enable_grad():
            y = selective_scan(*inputs, softplus)
        return torch.autograd.grad(y, inputs, dout.to(y.dtype))


def test_vmambas_kernel_in_the_composition(monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda_oflex', Kernel)
    scans, _ = benchmark_peers.foreign_scans(torch.device('cuda'))
    prepared = benchmark_op.for_composition(
        benchmark_op.scan_inputs(3, 8, 2, 1)
    )
    compose = benchmark_op._composition
    want, want_grads = gradients(compose(selective_scan), prepared)
    got, grads = gradients(compose(scans["VMamba's kernel"]), prepared)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grads, want_grads)
    # The kernel needs steps side by side, whatever autograd hands back.
    u, step = torch.rand(2, 1, 8, 5, requires_grad=True)
    A, D = -torch.ones(8, 1), torch.ones(8)
    B = torch.rand(1, 1, 1, 5)
    y = scans["VMamba's kernel"](u, step, A, B, B, D, D, True)
    torch.autograd.grad(y, u, torch.rand(1, 5, 8).mT)


class CrossScan:
    """Stands in for VMamba's file with Triton kernels."""

    @staticmethod
    def routes(maps):
        rows, columns = maps, maps.transpose(-2, -1)
        both = [rows.flatten(-2), columns.flatten(-2)]
        return torch.stack(both + [m.flip(-1) for m in both], 1)

    @classmethod
    def cross_scan_fn(
        cls, x, in_channel_first, out_channel_first, one_by_one, scans
    ):
        assert in_channel_first and out_channel_first
        assert not one_by_one and scans == 0 and x.dim() == 4
        return cls.routes(x)

    @classmethod
    def cross_merge_fn(cls, y, **options):
        index = torch.arange(y.shape[-2] * y.shape[-1])
        index = cls.routes(index.view(1, *y.shape[-2:]))[0]
        parts = y.flatten(-2).unbind(1)
        pairs = zip(parts, index, strict=True)
        return sum(part[..., i.argsort()] for part, i in pairs)


def test_vmambas_cross_scan_is_the_composition(monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda_oflex', Kernel)
    monkeypatch.setitem(sys.modules, 'csm_triton', CrossScan)
    found, missing = benchmark_peers.foreign_compositions(torch.device('cuda'))
    assert not missing
    inputs = benchmark_op.scan_inputs(3, 8, 2, 1, 2)
    prepared = benchmark_op.for_composition(inputs)
    compose = benchmark_op._composition
    want, want_grads = gradients(compose(selective_scan), prepared)
    got, grads = gradients(found["VMamba's Triton cross-scan"], prepared)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grads, want_grads)
