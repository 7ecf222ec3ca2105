"""Downsampling against plain formulas, on maps of odd sizes, too."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import ConvDownsample, InvertedDownsample, PatchMerging

LAYERS = [PatchMerging, ConvDownsample, InvertedDownsample]
SIZES = [(1, 1), (4, 6), (5, 3), (2, 7)]


def layer_and_map(kind, size, device):
    """A float64 layer, its weights far from their initial ones."""
    torch.manual_seed(0)
    layer = kind(4).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.to(device), torch.randn(2, *size, 4).double().to(device)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', LAYERS)
def test_halves_the_map_and_doubles_its_channels(device, kind, size):
    layer, x = layer_and_map(kind, size, device)
    y = layer(x)
    assert y.shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2, 8)
    y.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize('size', SIZES)
def test_merging_takes_four_tokens_of_a_map_padded_with_zeros(device, size):
    layer, x = layer_and_map(PatchMerging, size, device)
    got = layer(x)
    zero = torch.zeros(2, 4, dtype=x.dtype, device=device)
    for row in range(got.shape[1]):
        for column in range(got.shape[2]):
            # Columns first, as in Swin.
            tokens = [
                x[:, 2 * row + i, 2 * column + j]
                if 2 * row + i < size[0] and 2 * column + j < size[1]
                else zero
                for j in (0, 1)
                for i in (0, 1)
            ]
            want = layer.reduction(layer.norm(torch.cat(tokens, -1)))
            torch.testing.assert_close(got[:, row, column], want)


@pytest.mark.parametrize('size', SIZES)
def test_convolution_and_norm(device, size):
    layer, x = layer_and_map(ConvDownsample, size, device)
    want = F.conv2d(
        x.permute(0, 3, 1, 2), layer.conv.weight, layer.conv.bias, 2, 1
    )
    want = layer.norm(want.permute(0, 2, 3, 1))
    torch.testing.assert_close(layer(x), want)
    assert ConvDownsample(4, bias=False).conv.bias is None


@pytest.mark.parametrize('size', SIZES)
def test_inverted_downsampling_is_three_convolutions(device, size):
    layer, x = layer_and_map(InvertedDownsample, size, device)
    widen, depthwise, narrow = layer.conv
    y = F.relu(F.linear(x, widen.conv.weight[..., 0, 0], widen.conv.bias))
    y = F.relu(
        F.conv2d(
            y.permute(0, 3, 1, 2),
            depthwise.conv.weight,
            depthwise.conv.bias,
            stride=2,
            padding=1,
            groups=32,
        )
    )
    want = narrow.bn(narrow.conv(y)).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), want)
