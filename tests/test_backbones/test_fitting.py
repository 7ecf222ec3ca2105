"""What a file and a model have in common; stems for other channels."""

import pytest
import torch
from torch import nn

from mmssm.backbones import LocalVMamba, SpatialMamba, Vim, VMamba
from mmssm.backbones.fitting import compare, fit_first_convolution

MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))
FAMILIES = {
    'conv stem': (VMamba, MINI),
    'patch stem': (VMamba, dict(MINI, stem='patch')),
    'local': (LocalVMamba, dict(MINI, directions=['h'] * 4)),
    'residual stem': (SpatialMamba, MINI),
    'plain': (Vim, dict(embed_dims=32, depth=1)),
}


def test_all_that_is_left_out_is_named():
    own = nn.ModuleDict(
        dict(
            neck=nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)),
            head=nn.Linear(3, 5),
        )
    ).state_dict()
    given = {
        'neck.0.weight': torch.zeros(3, 2),
        'head.weight': torch.zeros(4, 3),
        'head.bias': torch.zeros(4),
        'mask.a.w': torch.zeros(1),
        'mask.b.w': torch.zeros(1),
        'epoch': torch.zeros(()),
    }
    fit = compare(own, given)
    assert str(fit) == (
        'loaded 1 of 9 tensors; '
        'not in the file: neck.0.bias, neck.1.* (5); '
        'not in the model: mask.* (2), epoch; '
        'other shape: head.weight (4, 3) instead of (5, 3), '
        'head.bias (4,) instead of (5,)'
    )
    assert fit.share() == 1 / 8  # the counter of the norm does not count
    whole = compare(own, own)
    assert whole.share() == 1
    assert str(whole) == (
        'loaded 9 of 9 tensors; not in the file: none; '
        'not in the model: none; other shape: none'
    )


def test_counters_alone_are_nothing():
    own = nn.BatchNorm1d(3).state_dict()
    given = nn.BatchNorm1d(4).state_dict()
    fit = compare(own, given)
    assert fit.taken == ['num_batches_tracked'] and fit.share() == 0


@pytest.mark.parametrize('channels', [1, 4, 6, 12])
@pytest.mark.parametrize('kind', FAMILIES)
def test_a_gray_image_gives_the_same_tokens(kind, channels):
    family, arch = FAMILIES[kind]
    arch = dict(arch)
    options = {k: arch.pop(k) for k in ('directions',) if k in arch}
    torch.manual_seed(0)
    source = family(arch, **options).eval()
    model = family(arch, in_channels=channels, **options).eval()
    fitted = fit_first_convolution(model, source.state_dict())
    model.load_state_dict(fitted)
    gray = torch.rand(2, 1, 32, 32)
    got = model.stem(gray.expand(-1, channels, -1, -1))
    want = source.stem(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('to', [3, 5])
def test_what_needs_no_fitting_or_cannot_be_fitted_stays(to):
    other = nn.Sequential(nn.Conv2d(3, 8, to))
    weights = nn.Sequential(nn.Conv2d(3 if to == 3 else 6, 8, 3)).state_dict()
    assert fit_first_convolution(other, weights) is weights
    assert fit_first_convolution(nn.Linear(1, 1), weights) is weights
