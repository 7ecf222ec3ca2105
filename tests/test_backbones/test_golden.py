"""Every family computes what its original implementation does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmssm.backbones import (
    FractalMamba,
    LocalVim,
    LocalVMamba,
    SpatialMamba,
    Vim,
    VMamba,
)
from mmssm.checkpoint import convert_upstream

STAGES = dict(out_indices=(0, 1, 2, 3))
LAYERS = dict(out_type='featmap', out_indices=(4, 9, 14, 19))
RASTER = dict(order='raster', pathways=0.0)
RELEASED = dict(STAGES, released_inverse=True)
CASES = {
    'vmamba_vanilla_tiny_cls': (VMamba, 'vanilla-tiny', {}),
    'vmamba_tiny_s2l5_cls': (VMamba, 'tiny-s2l5', {}),
    'vmamba_tiny_s1l8_cls': (VMamba, 'tiny-s1l8', {}),
    'vmamba_tiny_m2_cls': (VMamba, 'tiny-m2', {}),
    'vmamba_vanilla_tiny_backbone': (VMamba, 'vanilla-tiny', STAGES),
    'vmamba_tiny_s1l8_backbone': (VMamba, 'tiny-s1l8', STAGES),
    'spatial_mamba_tiny_cls': (SpatialMamba, 'tiny', {}),
    'spatial_mamba_tiny_backbone': (SpatialMamba, 'tiny', STAGES),
    'local_vmamba_tiny_cls': (LocalVMamba, 'tiny', {}),
    'local_vmamba_tiny_backbone': (LocalVMamba, 'tiny', STAGES),
    'local_vmamba_tiny_backbone_released_inverse': (
        LocalVMamba,
        'tiny',
        RELEASED,
    ),
    'local_vim_tiny_cls': (LocalVim, 'tiny', {}),
    'local_vim_tiny_middle_cls_token_cls': (LocalVim, 'tiny-midcls', {}),
    'local_vim_tiny_backbone': (LocalVim, 'tiny', LAYERS),
    'vim_tiny_cls': (Vim, 'tiny', {}),
    # GrootV-T with its spanning tree replaced by the rows' path.
    'groot_v_tiny_raster_path_cls': (FractalMamba, 'tiny', RASTER),
}


def original_weights(case):
    """As the released file has them."""
    weights = case.state_dict()
    # LocalVim's A_log_0 to 3 of a layer start as one tensor. The files hold
    # four, but the cases were computed on a CPU, where loading fills that one
    # memory with each in turn: the last counts for all routes.
    for key in weights:
        if '.A_log_' in key:
            weights[key] = weights[f'{key[:-1]}3']
    return weights


class Classifier(nn.Module):
    """A backbone and its classifier's head, in mmpretrain's names."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Module()
        if isinstance(backbone, FractalMamba):
            self.head.conv = nn.Conv2d(640, 960, 1, bias=False)
            self.head.bn = nn.BatchNorm2d(960)
            self.head.fc = nn.Linear(960, 1000)
        elif isinstance(backbone, LocalVim | Vim):
            self.head.fc = nn.Linear(192, 1000)
        else:
            width = backbone.arch['embed_dims'] * 8
            self.head.fc = nn.Linear(width, 1000)

    def forward(self, images):
        x = self.backbone(images)[-1]
        if hasattr(self.head, 'conv'):
            x = F.gelu(self.head.bn(self.head.conv(x)))
        if x.dim() == 4:
            x = x.mean((2, 3))
        return self.head.fc(x)


class Backbone(nn.Module):
    """A backbone alone, under the name that it has in a model."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return self.backbone(images)


@pytest.mark.parametrize('name', CASES)
def test_golden(device, golden, name):
    """A classifier, or maps of odd sizes that are not square; in eval mode
    without gradients, as in use, and with them.
    """
    case, (backbone, arch, options) = golden(name), CASES[name]
    # The family's name, by which a user's file would be told from others'.
    converted = convert_upstream({'model': original_weights(case)}, name)
    assert converted['meta']['mmssm']['arch'] == arch
    classifies = name.endswith('_cls')
    model = (Classifier if classifies else Backbone)(backbone(arch, **options))
    model.load_state_dict(converted['state_dict'], strict=True)
    count = sum(p.numel() for p in model.parameters())
    assert count == case.meta['params']
    model.eval().to(device)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            outs = model(case.input().to(device))
        if classifies:
            assert outs.device.type == device.type
            assert case.error('logits', outs) <= 2e-4
            continue
        assert len(outs) == 4
        for i, out in enumerate(outs):
            assert out.device.type == device.type
            assert case.error(f'stage{i}', out) <= 2e-4
