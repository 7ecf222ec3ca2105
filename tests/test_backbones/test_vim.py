"""Vim's own: its two scans, its initial values."""

import pytest
import torch

from mmssm.backbones import Vim
from mmssm.layers.norms import RMSNorm
from mmssm.layers.route_merge import RouteMean

MINI = dict(embed_dims=32, depth=3, d_state=4)


@pytest.mark.parametrize('class_token', [False, True])
def test_mixers_see_one_row_with_the_class_token_in_it(class_token):
    model = Vim(dict(MINI, class_token=class_token), img_size=64)
    seen = []
    for layer in model.layers:
        assert layer.mixer.routes == ('h', 'h_flip')
        assert type(layer.mixer.merge) is RouteMean
        layer.mixer.register_forward_pre_hook(
            lambda module, inputs: seen.append(
                (inputs[0].shape[1], *inputs[1:])
            )
        )
    model(torch.zeros(1, 3, 48, 80))
    assert seen == [(15 + class_token, 1, 15 + class_token)] * 3


def test_mirrored_sequence_and_swapped_weights_give_the_mirrored_result():
    """Both directions are computed alike."""
    torch.manual_seed(0)
    model = Vim(MINI, img_size=64).double().eval()
    mixer = model.layers[1].mixer
    x = torch.randn(2, 17, 32).double()
    with torch.no_grad():
        want = mixer(x, 1, 17).flip(1)
        for name, parameter in mixer.named_parameters():
            if 'proj.weight' not in name:  # has an axis of two routes
                halves = parameter.view(2, -1).flip(0)
                parameter.copy_(halves.reshape(parameter.shape))
        torch.testing.assert_close(mixer(x.flip(1), 1, 17), want)


def test_initial_values():
    torch.manual_seed(0)
    model = Vim('tiny')
    model.init_weights()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    for layer in model.layers:
        assert type(layer.norm) is RMSNorm and layer.norm.eps == 1e-5
        bound = (384 * 24) ** -0.5
        assert 0.95 < layer.mixer.out_proj.weight.max() / bound <= 1
    fan_in = 3 * 16 * 16
    weight = model.stem.conv.weight
    assert weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.02)
    assert 2.2 < weight.abs().max() * fan_in**0.5 < 2.3
    assert (model.stem.conv.bias == 0).all()
    assert model.layers[0].mixer.in_proj.weight.abs().max() <= 192**-0.5


def test_patches_may_overlap():
    """As in the models that the authors finetune at finer granularity."""
    model = Vim(dict(MINI, patch_stride=8), img_size=64, out_type='featmap')
    assert model.grid == (7, 7)
    assert model(torch.zeros(1, 3, 64, 80))[0].shape == (1, 32, 7, 9)
