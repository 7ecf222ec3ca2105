import torch
from mmengine.registry import MODELS

from mmssm.models import ConvClsHead


def test_convolution_norm_activation_then_the_mean():
    torch.manual_seed(0)
    head = MODELS.build(
        dict(
            type='mmssm.models.ConvClsHead',
            num_classes=5,
            in_channels=8,
            mid_channels=12,
        )
    ).eval()
    assert isinstance(head, ConvClsHead)
    head.bn.running_mean.normal_()
    head.bn.running_var.uniform_(0.5, 2)
    maps = torch.randn(2, 8, 3, 4)
    mid = torch.einsum('bchw,dc->bdhw', maps, head.conv.weight[:, :, 0, 0])
    mid = mid - head.bn.running_mean.view(1, -1, 1, 1)
    mid = mid / (head.bn.running_var.view(1, -1, 1, 1) + 1e-5).sqrt()
    mean = torch.nn.functional.gelu(mid).mean((2, 3))
    want = mean @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head((None, maps)), want)
