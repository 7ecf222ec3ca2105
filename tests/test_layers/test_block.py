"""Residual blocks against their formulas; in slices, with less memory."""

import pytest
import torch
from torch import nn

from mmssm.layers import MambaBlock, MambaMixer, VSSBlock, slices


class Doubled(nn.Module):
    """A mixer that is easy to tell from others."""

    def forward(self, x, *size):
        return 2 * x


def vss_block(device, **options):
    """A float64 block, its weights far from their initial ones."""
    torch.manual_seed(0)
    block = VSSBlock(8, Doubled(), **options).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.to(device)


def map_on(device, *shape):
    return torch.randn(shape, dtype=torch.float64).to(device)


def feed_forward(block, x):
    """The FFN as a formula."""
    first, last = block.ffn.layers[0][0], block.ffn.layers[1]
    return last(nn.functional.gelu(first(block.norm2(x))))


def encoding(conv, x):
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
@pytest.mark.parametrize('cpe', [False, True])
def test_vss_block_is_its_formula(device, size, cpe):
    block = vss_block(device, mlp_ratio=3.0, drop_path_rate=0.9, cpe=cpe)
    block.eval()
    x = map_on(device, 2, *size, 8)
    want = x
    if cpe:
        want = want + encoding(block.cpe1, want)
    want = want + 2 * block.norm1(want)
    if cpe:
        want = want + encoding(block.cpe2, want)
    want = want + feed_forward(block, want)
    torch.testing.assert_close(block(x), want)
    assert block.ffn.layers[1].in_features == 24


def test_vss_block_without_ffn(device):
    block = vss_block(device, mlp_ratio=0.0, cpe=True)
    names = {name.split('.')[0] for name, _ in block.named_parameters()}
    assert names == {'cpe1', 'norm1'}
    x = map_on(device, 2, 3, 5, 8)
    encoded = x + encoding(block.cpe1, x)
    want = encoded + 2 * block.norm1(encoded)
    torch.testing.assert_close(block(x), want)


@pytest.mark.parametrize('cpe', [False, True])
def test_recomputing_gives_the_same_gradients(device, cpe):
    grads, kept = [], []
    x = map_on(device, 4, 6, 6, 8)
    weight = torch.randn_like(x)
    for with_cp in (False, True):
        block = vss_block(device, with_cp=with_cp, cpe=cpe)
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, n=numbers: n.append(t.numel()) or t, lambda t: t
        ):
            loss = (block(x) * weight).sum()
        loss.backward()
        kept.append(sum(numbers))
        grads.append([p.grad for p in block.parameters()])
    assert kept[1] < kept[0] / 2
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('autocast', [False, True])
def test_vss_block_in_slices(monkeypatch, autocast):
    torch.manual_seed(0)
    block = VSSBlock(8, nn.Linear(8, 8), drop_path_rate=0.5).eval()
    x = torch.randn(2, 5, 7, 8)
    with torch.no_grad(), torch.autocast('cpu', enabled=autocast):
        want = block(x)
        monkeypatch.setattr(slices, 'SLICE_BYTES', 1000)
        got = block(x)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want)


def test_stochastic_depth_drops_samples_not_slices(monkeypatch):
    """In training mode without gradients, too."""
    monkeypatch.setattr(slices, 'SLICE_BYTES', 1000)
    torch.manual_seed(0)
    block = VSSBlock(8, nn.Identity(), drop_path_rate=0.5).train()
    nn.init.constant_(block.norm1.weight, 0)  # leaves the FFN's branch
    x = torch.randn(32, 5, 7, 8)
    with torch.no_grad():
        kept = (block(x) != x).flatten(1)
    assert (kept.any(1) == kept.all(1)).all()
    assert 0 < kept.any(1).sum() < 32


@pytest.mark.parametrize('with_cp', [False, True])
def test_mamba_block_adds_the_mixer_and_gives_its_output_alone(
    device, with_cp
):
    torch.manual_seed(0)
    mixer = MambaMixer(20, 'h v_flip w2 w3_flip', 'gated', d_state=3)
    mixer = mixer.double().to(device)
    norm = nn.RMSNorm(20).double().to(device)
    block = MambaBlock(norm, mixer, drop_path_rate=0.999, with_cp=with_cp)
    x = map_on(device, 2, 15, 20)
    want = mixer(norm(x), 3, 5)
    total, mixed = block.eval()(x, 3, 5)
    torch.testing.assert_close(mixed, want)
    torch.testing.assert_close(total, x + want)
    # Training at such a rate drops what is added, not the output itself.
    total, mixed = block.train()(x, 3, 5)
    torch.testing.assert_close(mixed, want)
    assert torch.equal(total, x)
