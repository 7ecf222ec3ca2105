"""The convolution's parts, and where its initial weights come from."""

import pytest
import torch
from torch import nn

from mmssm.layers.conv_bn import conv_bn


@pytest.mark.parametrize(
    'options, parts',
    [
        (dict(), ['conv', 'bn', 'act']),
        (dict(act=False), ['conv', 'bn']),
        (dict(norm=False, bias=True), ['conv', 'act']),
    ],
)
def test_parts_have_names(options, parts):
    layer = conv_bn(4, 6, 3, **options)
    assert [name for name, _ in layer.named_children()] == parts
    assert (layer.conv.bias is not None) is options.get('bias', False)


@pytest.mark.parametrize('kernel_size, stride', [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize('size', [(1, 1), (5, 8)])
def test_is_convolution_norm_and_relu(device, size, kernel_size, stride):
    torch.manual_seed(0)
    layer = conv_bn(4, 8, kernel_size, stride, groups=4).double().to(device)
    x = torch.randn(3, 4, *size, dtype=torch.float64).to(device)
    y = nn.functional.conv2d(
        x, layer.conv.weight, None, stride, kernel_size // 2, groups=4
    )
    assert y.shape[2:] == tuple(-(-side // stride) for side in size)
    mean = y.mean((0, 2, 3), keepdim=True)
    variance = y.var((0, 2, 3), unbiased=False, keepdim=True)
    want = ((y - mean) / (variance + 1e-5).sqrt()).relu()
    torch.testing.assert_close(layer(x), want)


def test_weights_start_as_pytorchs():
    torch.manual_seed(0)
    want = nn.Conv2d(4, 6, 3, padding=1)
    torch.manual_seed(0)
    got = conv_bn(4, 6, 3, bias=True).conv
    assert torch.equal(got.weight, want.weight)
    assert torch.equal(got.bias, want.bias)
