import pytest
import torch

from mmssm.backbones import Vim
from mmssm.checkpoint import convert_upstream

MODEL = 'vim_tiny'
MIXER = 'layers.5.mixer.'
PAIRS = {
    'A_logs': ('A_log', 'A_b_log'),
    'Ds': ('D', 'D_b'),
    'conv_weight': ('conv1d.weight', 'conv1d_b.weight'),
    'conv_bias': ('conv1d.bias', 'conv1d_b.bias'),
    'x_proj_weight': ('x_proj.weight', 'x_proj_b.weight'),
    'dt_projs_weight': ('dt_proj.weight', 'dt_proj_b.weight'),
    'dt_projs_bias': ('dt_proj.bias', 'dt_proj_b.bias'),
}


def test_forward_stands_before_backward(original):
    weights = original(MODEL)
    for pair in PAIRS.values():
        for name in reversed(pair):
            shape = weights.pop(MIXER + name).shape
            weights[MIXER + name] = torch.randn(shape)
    converted = convert_upstream(weights, 'x.pth')['state_dict']
    for name, pair in PAIRS.items():
        parts = converted[f'backbone.{MIXER}{name}'].view(2, -1)
        for part, old in zip(parts, pair):
            assert torch.equal(part, weights[MIXER + old].flatten()), old


def test_finer_patches_are_recognized(original, shapes, model_shapes):
    """27 x 27 patches: 8 pixels apart in an image of 224 x 224."""
    weights = original(MODEL)
    weights['pos_embed'] = torch.zeros(1, 27 * 27 + 1, 192)
    converted = convert_upstream(weights, 'x.pth')
    arch = converted['meta']['mmssm']['arch']
    assert arch['patch_stride'] == 8 and arch['embed_dims'] == 192
    found = shapes(converted['state_dict'])
    found = {k: v for k, v in found.items() if k[:4] != 'head'}
    assert found == model_shapes(Vim, arch=dict(patch_stride=8))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({f'{MIXER}A_b_log': None}, f"key '{MIXER}A_b_log' is missing"),
        ({f'{MIXER}D_b': (4,)}, f"key '{MIXER}D_b' has shape (4,) instead"),
        ({f'{MIXER}gamma': (192,)}, f"key '{MIXER}gamma' is not one of its"),
        ({'norm_f.weight': None}, "key 'norm_f.weight' is missing"),
        ({'cls_token': None}, "key 'pos_embed' has positions of 197 patches"),
    ],
)
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('vim', MODEL, changes).startswith(message)
