"""Every layer gives on each device what the ops' references give on a CPU."""

import copy

import pytest
import torch
from torch import nn

from mmssm.layers import (
    SS2D,
    SSD2D,
    ConvDownsample,
    ConvStem,
    InvertedDownsample,
    MambaBlock,
    MambaMixer,
    PatchMerging,
    PatchStem,
    PatchTokens,
    ResidualStem,
    StructureAwareSSM,
    TreeSSM,
    VSSBlock,
)
from mmssm.ops import native


def mamba_block():
    return MambaBlock(nn.RMSNorm(16), MambaMixer(16, 'h v_flip w2', 'gated'))


SCANS = {
    'ss2d': lambda: SS2D(16, d_state=2, gate=True, ssm_ratio=2.0),
    'ssd2d': lambda: SSD2D(16),
    'structure-aware': lambda: StructureAwareSSM(16),
    'tree': lambda: TreeSSM(16, 'hilbert', 0.1),
    'block': lambda: VSSBlock(16, SS2D(16)),
}
SEQUENCE_SCANS = {
    'mamba-mean': lambda: MambaMixer(16, 'h h_flip', 'mean'),
    'mamba-searched': lambda: MambaMixer(16, 'h v w3_flip', 'searched'),
    'mamba-block': mamba_block,
}
DOWNSAMPLES = {
    'merging': lambda: PatchMerging(16),
    'conv-downsample': lambda: ConvDownsample(16),
    'inverted-downsample': lambda: InvertedDownsample(16),
}
STEMS = {
    'patch-stem': lambda: PatchStem(3, 16),
    'patch-tokens': lambda: PatchTokens(3, 16, 8, 4),
    'conv-stem': lambda: ConvStem(3, 16),
    'residual-stem': lambda: ResidualStem(3, 16),
}
LAYERS = {**SCANS, **SEQUENCE_SCANS, **DOWNSAMPLES, **STEMS}


def make(name):
    """A layer, its weights far from their initial ones, and its input."""
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if name in STEMS:
        return layer, (torch.randn(2, 3, 21, 30),)
    x = torch.randn(2, 5, 7, 16)
    if name in SEQUENCE_SCANS:
        return layer, (x.flatten(1, 2), 5, 7)
    return layer, (x,)


def run(layer, inputs, device, dtype):
    """[result, gradients of the input and of the parameters]."""
    x = inputs[0].to(device, dtype).requires_grad_()
    layer = copy.deepcopy(layer).to(device, dtype)
    y = layer(x, *inputs[1:])
    y = sum(y) if isinstance(y, tuple) else y
    weight = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
    leaves = [x, *layer.parameters()]
    return [y, *torch.autograd.grad(y, leaves, weight.to(device))]


def by_references(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(native, 'use_native', lambda tensor: False)
        return run(*arguments)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('name', LAYERS)
def test_values_and_gradients(device, monkeypatch, name, dtype):
    layer, inputs = make(name)
    want = by_references(
        monkeypatch, layer, inputs, torch.device('cpu'), dtype
    )
    got = run(layer, inputs, device, dtype)
    limit = 1e-10 if dtype == torch.float64 else 1e-4
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.device.type == device.type
        largest = max(1, float(b.detach().abs().max()))
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=limit * largest)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', [*SCANS, *SEQUENCE_SCANS])
def test_autocast(device, monkeypatch, name, dtype):
    """In training, too: all gradients are near those of float32."""
    layer, inputs = make(name)
    wide = torch.float32
    want = by_references(monkeypatch, layer, inputs, torch.device('cpu'), wide)
    with torch.autocast(device.type, dtype=dtype):
        got = run(layer, inputs, device, wide)
    for a, b in zip(got, want, strict=True):
        error = (a.cpu().float() - b).norm() / b.norm().clamp_min(1e-3)
        assert error < 0.1
