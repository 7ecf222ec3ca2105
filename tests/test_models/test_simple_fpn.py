import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmssm.models import SimpleFPN


@pytest.fixture
def neck():
    torch.manual_seed(0)
    return SimpleFPN(in_channels=16, out_channels=8)


def test_levels_have_half_the_size_of_the_one_before(neck):
    outs = neck([torch.rand(2, 16, 8, 12)])
    assert [tuple(y.shape) for y in outs] == [
        (2, 8, 32, 48),
        (2, 8, 16, 24),
        (2, 8, 8, 12),
        (2, 8, 4, 6),
        (2, 8, 2, 3),
    ]


def test_odd_sizes(neck):
    outs = neck([torch.rand(1, 16, 5, 3)])
    assert [tuple(y.shape[2:]) for y in outs] == [
        (20, 12),
        (10, 6),
        (5, 3),
        (2, 1),
        (1, 1),
    ]


def test_further_levels_are_every_second_pixel():
    outs = SimpleFPN(in_channels=4, num_outs=6)([torch.rand(1, 4, 8, 8)])
    assert len(outs) == 6
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])
    assert torch.equal(outs[5], outs[4][:, :, ::2, ::2])


def test_the_smallest_level_sees_the_largest_values(neck):
    """ViTDet pools by maximum, and convolves without an activation."""
    neck.convs[3] = nn.Identity()
    x = torch.rand(1, 16, 4, 4)
    expected = x.unflatten(2, (2, 2)).unflatten(4, (2, 2)).amax((3, 5))
    assert torch.equal(neck([x])[3], expected)
    outs = neck([x - 0.5])
    assert all((y < 0).any() for y in outs[:3])


def test_the_largest_level_grows_in_two_steps(neck):
    first, norm, _, second = neck.rescale[0]
    x = torch.randn(1, 16, 4, 4)
    mean = first(x).mean(1, keepdim=True)
    deviation = first(x).var(1, unbiased=False, keepdim=True).add(norm.eps)
    grown = F.gelu((first(x) - mean) / deviation.sqrt())
    expected = neck.convs[0](second(grown))
    assert torch.allclose(neck([x])[0], expected, atol=1e-5)


def test_norms_are_over_channels(neck):
    """With norms of weight 1 and bias 0, a pixel's channels have mean 0."""
    for y in neck([torch.rand(2, 16, 6, 6)])[:4]:
        assert y.mean(1).abs().max() < 1e-5
        variance = y.var(1, unbiased=False)
        assert torch.allclose(variance, torch.ones(()), atol=1e-2)


def test_parameters_as_in_vitdet():
    """768 channels to 256, counted from the paper's description."""
    up = (768 * 384 * 4 + 384) + 2 * 384 + (384 * 192 * 4 + 192)
    up += 768 * 384 * 4 + 384
    # Convolutions before a norm have no bias.
    lateral = 256 * (192 + 384 + 768 + 768)
    smooth = 4 * 256 * 256 * 9
    norms = 8 * 2 * 256
    parameters = SimpleFPN(in_channels=768).parameters()
    assert sum(p.numel() for p in parameters) == up + lateral + smooth + norms


def test_every_parameter_learns(neck):
    sum(y.square().mean() for y in neck([torch.rand(2, 16, 4, 4)])).backward()
    # Outputs are normed, so that their squares' mean says nothing of scale.
    silent = [n for n, p in neck.named_parameters() if p.grad is None]
    assert not silent


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_builds_by_name_in_other_libraries(scope):
    with DefaultScope.overwrite_default_scope(scope):
        neck = MODELS.build(
            dict(type='mmssm.models.SimpleFPN', in_channels=16)
        )
    assert isinstance(neck, SimpleFPN)


def test_other_norms():
    neck = SimpleFPN(in_channels=16, norm_cfg=dict(type='BN'))
    assert isinstance(neck.rescale[0][1], nn.BatchNorm2d)
    assert isinstance(neck.convs[0][0].norm, nn.BatchNorm2d)


def test_what_does_not_fit_is_said(neck):
    with pytest.raises(ValueError, match='multiple of 4.* got 30'):
        SimpleFPN(in_channels=30)
    with pytest.raises(ValueError, match='num_outs must be 4 or more, got 3'):
        SimpleFPN(in_channels=16, num_outs=3)
    with pytest.raises(ValueError, match='one map, got 2'):
        neck([torch.rand(1, 16, 4, 4)] * 2)
