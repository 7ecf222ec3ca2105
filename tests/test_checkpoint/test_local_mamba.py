"""LocalVMamba's and LocalVim's files."""

import pytest
import torch

from mmssm.backbones import LocalVim
from mmssm.checkpoint import convert_upstream

VMAMBA, VIM = 'local_vmamba_tiny', 'local_vim_tiny'
MERGE = 'layers.0.blocks.0.op.multi_scan.'
MIXER = 'layers.3.mixer.'


def filled(weights, moves):
    """Weights where every key of ``moves`` holds a number of its own."""
    for number, key in enumerate(moves):
        weights[key] = torch.full(weights[key].shape, float(number + 1))
    return convert_upstream(weights, 'x.ckpt')['state_dict']


def test_local_vmambas_values_go_where_they_belong(original):
    block = 'stages.0.blocks.0'
    moves = {
        'patch_embed.0.bias': 'stem.conv.bias',
        'patch_embed.2.bias': 'stem.norm.bias',
        'layers.0.blocks.0.norm.bias': f'{block}.norm1.bias',
        'layers.0.blocks.0.op.Ds': f'{block}.mixer.Ds',
        f'{MERGE}attn.norm.bias': f'{block}.mixer.merge.norm.bias',
        f'{MERGE}attn.global_reduce.bias': f'{block}.mixer.merge.reduce.bias',
        f'{MERGE}attn.channel_select.bias': (
            f'{block}.mixer.merge.select.bias'
        ),
        'layers.1.downsample.norm.bias': 'stages.1.downsample.norm.bias',
        'classifier.norm.bias': 'norm3.bias',
    }
    converted = filled(original(VMAMBA), moves)
    for number, target in enumerate(moves.values()):
        assert converted[f'backbone.{target}'][0] == number + 1


def test_each_route_of_local_vim_has_its_own(original):
    weights = original(VIM)
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


def test_local_vims_values_go_where_they_belong(original):
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
    converted = filled(original(VIM), moves)
    for number, target in enumerate(moves.values()):
        assert converted[f'backbone.{target}'].flatten()[0] == number + 1


def test_outputs_of_local_vim_bear_their_layers_numbers(original):
    weights = original(f'{VIM}_backbone')
    moves = [f'outnorm_{i}.bias' for i in range(4)]
    converted = filled(weights, moves)
    for number, layer in enumerate((4, 9, 14, 19)):
        assert converted[f'backbone.norm{layer}.bias'][0] == number + 1
    detector = {k: v for k, v in weights.items() if k[:7] != 'outnorm'}
    detector['outnorm_0.weight'] = torch.ones(192)
    detector['outnorm_0.bias'] = torch.full((192,), 7.0)
    converted = convert_upstream(detector, 'x.ckpt')['state_dict']
    assert converted['backbone.norm19.bias'][0] == 7


def test_detector_with_layer_norms_and_larger_images(
    original, shapes, model_shapes
):
    """As the authors' detectors have it: 1024 x 1024 pixels, LayerNorm."""
    weights = original(f'{VIM}_backbone')
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
    message = refusal('local_vim', f'{VIM}_backbone', changes)
    assert message.startswith('it has outputs after 3 of 20 layers')


@pytest.mark.parametrize(
    'model, key, block',
    [
        (
            'local_vmamba_tiny_search',
            'layers.2.blocks.8.op.multi_scan.weights',
            'stages.2.blocks.8',
        ),
        (
            'local_vim_tiny_search',
            'layers.19.mixer.multi_scan.weights',
            'layers.19',
        ),
    ],
)
def test_learnt_weights_of_a_search(original, model, key, block):
    weights = original(model)
    assert weights[key].shape == (8, 1, 1, 1)
    weights[key] = torch.arange(8.0).view(8, 1, 1, 1)
    converted = convert_upstream(weights, 'x.ckpt')['state_dict']
    found = converted[f'backbone.{block}.mixer.merge.weights']
    assert torch.equal(found, torch.arange(8.0))


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {f'{MERGE}attn.local_reduce.weight': (24, 192)},
            f"key '{MERGE}attn.local_reduce.weight' is not one of its own",
        ),
        (
            {f'{MERGE}attn.norm.bias': None},
            f"key '{MERGE}attn.norm.bias' is missing",
        ),
        (
            {f'{MERGE}weights': (8, 1, 1, 1)},
            "key 'layers.0.blocks.0.op.x_proj_weight' has shape (4, 38, 192) "
            'instead of (8, 38, 192)',
        ),
        (
            {'layers.2.blocks.9.norm.weight': (384,)},
            'it has 16 blocks of 4 routes and does not tell which scan '
            'directions they are; known are those of 15 blocks of 4',
        ),
    ],
)
def test_wrong_local_vmamba_is_refused(refusal, changes, message):
    assert refusal('local_vmamba', VMAMBA, changes).startswith(message)


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
def test_wrong_local_vim_is_refused(refusal, changes, message):
    assert refusal('local_vim', VIM, changes).startswith(message)
