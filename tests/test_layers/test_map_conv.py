"""MapConv2d equals nn.Conv2d, whichever way it takes."""

import pytest
import torch
from torch import nn

from mmssm.layers.map_conv import MapConv2d


def both(*arguments):
    torch.manual_seed(0)
    conv = nn.Conv2d(*arguments).double()
    mapped = MapConv2d(*arguments).double()
    mapped.load_state_dict(conv.state_dict(), strict=True)
    return conv, mapped


@pytest.mark.parametrize('arguments', [(3, 16, 3, 2, 1), (3, 16, 4, 4)])
@pytest.mark.parametrize(
    'size, product', [((5, 6), True), ((4, 4), True), ((40, 31), False)]
)
def test_equals_conv2d(device, monkeypatch, arguments, size, product):
    conv, mapped = both(*arguments)
    products = []
    original = MapConv2d._product
    monkeypatch.setattr(
        MapConv2d,
        '_product',
        lambda self, x: products.append(1) or original(self, x),
    )
    x = torch.randn(2, *size, 3, dtype=torch.float64, requires_grad=True)
    want = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    mapped.to(device)
    moved = x.detach().to(device).requires_grad_()
    got = mapped(moved)
    assert bool(products) == (product and device.type == 'cpu')
    torch.testing.assert_close(got.cpu(), want)
    weight = torch.randn_like(want)
    inputs = [x, *conv.parameters()], [moved, *mapped.parameters()]
    for a, b in zip(
        torch.autograd.grad((want * weight).sum(), inputs[0]),
        torch.autograd.grad((got * weight.to(device)).sum(), inputs[1]),
    ):
        torch.testing.assert_close(b.cpu(), a)
