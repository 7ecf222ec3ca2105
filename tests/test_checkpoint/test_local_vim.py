"""LocalVim's files."""

import pytest
import torch

from mmssm.backbones import LocalVim
from mmssm.checkpoint import convert_upstream

MODEL = 'local_vim_tiny'
MIXER = 'layers.3.mixer.'


def test_each_route_has_its_own(original):
    weights = original(MODEL)
    kinds = {
        'A_log_{}': 'A_logs',
        'D_{}': 'Ds',
        'conv1d_{}.weight': 'conv_weight',
        'conv1d_{}.bias': 'conv_bias',
        'x_proj_{}.weight': 'x_proj_weight',
        'dt_proj_{}.weight': 'dt_projs_weight',
        'dt_proj_{}.bias': 'dt_projs_bias',
    }
    order = (2, 0, 3, 1)  # also where the file has them in another order
    for old in kinds:
        for route in order:
            key = MIXER + old.format(route)
            weights[key] = torch.randn(weights.pop(key).shape)
    converted = convert_upstream(weights, 'x.ckpt')['state_dict']
    for old, new in kinds.items():
        whole = converted[f'backbone.{MIXER}{new}']
        parts = whole.view(4, -1)
        for route in range(4):
            want = weights[MIXER + old.format(route)].flatten()
            assert torch.equal(parts[route], want), (old, route)


def test_values_go_where_they_belong(original, assert_moved):
    moves = {
        'pos_embed': 'pos_embed',
        'patch_embed.proj.bias': 'stem.conv.bias',
        'rope.freqs_cos': 'rope.cos',
        'rope.freqs_sin': 'rope.sin',
        f'{MIXER}attn.norm.bias': f'{MIXER}merge.norm.bias',
        f'{MIXER}attn.global_reduce.bias': f'{MIXER}merge.reduce.bias',
        f'{MIXER}attn.channel_select.bias': f'{MIXER}merge.select.bias',
        'layers.3.norm.weight': 'layers.3.norm.weight',
        'norm_f.weight': 'norm.weight',
    }
    assert_moved(original(MODEL), moves)


def test_outputs_have_their_layers_numbers(original, assert_moved):
    weights = original(f'{MODEL}_backbone')
    moves = {
        f'outnorm_{i}.bias': f'norm{layer}.bias'
        for i, layer in enumerate((4, 9, 14, 19))
    }
    assert_moved(weights, moves)
    detector = {k: v for k, v in weights.items() if k[:7] != 'outnorm'}
    detector['outnorm_0.weight'] = torch.ones(192)
    detector['outnorm_0.bias'] = torch.full((192,), 7.0)
    converted = convert_upstream(detector, 'x.ckpt')['state_dict']
    assert converted['backbone.norm19.bias'][0] == 7


def test_detector_with_layer_norms_and_larger_images(
    original, shapes, model_shapes
):
    """As the authors' detectors have it: 1024 x 1024 pixels, LayerNorm."""
    weights = original(f'{MODEL}_backbone')
    for key in ('rope.freqs_cos', 'rope.freqs_sin'):
        weights[key] = torch.zeros(64 * 64, 192)
    weights['pos_embed'] = torch.zeros(1, 64 * 64, 192)
    for layer in range(20):
        weights[f'layers.{layer}.norm.bias'] = torch.zeros(192)
    checkpoint = {f'backbone.{k}': v for k, v in weights.items()}
    converted = convert_upstream(dict(state_dict=checkpoint), 'det.pth')
    assert converted['meta']['mmssm']['arch'] == 'tiny'
    assert shapes(converted['state_dict']) == model_shapes(
        LocalVim,
        norm='layer',
        img_size=1024,
        out_type='featmap',
        out_indices=(4, 9, 14, 19),
    )


def test_outputs_at_other_distances_are_refused(refusal):
    changes = {f'outnorm_3.{end}': None for end in ('weight', 'bias')}
    message = refusal('local_vim', f'{MODEL}_backbone', changes)
    assert message.startswith('it has outputs after 3 of 20 layers')


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {f'{MIXER}A_log_2': None},
            f"key '{MIXER}A_log_2' is missing",
        ),
        (
            {f'{MIXER}conv1d_1.weight': (384, 1, 3)},
            f"key '{MIXER}conv1d_1.weight' has shape (384, 1, 3) instead of "
            '(384, 1, 4)',
        ),
        (
            {f'{MIXER}A_log_4': (384, 16)},
            f"key '{MIXER}A_log_4' is not one of its own",
        ),
        ({'layers.19.norm.weight': None}, "key 'layers.19.norm.weight' is"),
        (
            {'layers.20.norm.weight': (192,)},
            'it has 21 blocks of 4 routes and does not tell which scan',
        ),
        (
            {f'layers.0.mixer.D_{route}': None for route in (1, 2)},
            'it has 20 blocks of 2 routes and does not tell which scan',
        ),
        ({'norm_f.weight': None}, "key 'norm_f.weight' is missing"),
        ({'pos_embed': None}, "key 'pos_embed' is missing"),
        (
            {'pos_embed': (1, 195, 192)},
            "key 'pos_embed' has positions of 195 patches, which make no",
        ),
        ({'rope.freqs_sin': None}, "key 'rope.freqs_sin' is missing"),
        (
            {'layers.21.norm.weight': (192,)},
            'it has only the layers [0, 1, 2,',
        ),
        ({'head.bias': (10,)}, "key 'head.bias' has shape (10,) instead of"),
        ({'patch_embed.proj.weight': (192, 3)}, "key 'patch_embed.proj.wei"),
    ],
)
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('local_vim', MODEL, changes).startswith(message)
