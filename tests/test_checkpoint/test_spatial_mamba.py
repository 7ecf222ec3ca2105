import pytest
import torch

from mmssm.backbones import SpatialMamba
from mmssm.checkpoint import convert_upstream

MODEL = 'spatial_mamba_tiny'
BLOCK = 'layers.0.blocks.0.'
MIXER = f'{BLOCK}self_attention.'
FUSION = f'{MIXER}state_fusion.'


def test_values_go_where_they_belong(original, assert_moved):
    block = 'stages.0.blocks.0'
    moves = {
        'patch_embed.conv2.1.norm.running_var': 'stem.conv2.1.bn.running_var',
        f'{BLOCK}cpe1.bias': f'{block}.cpe1.bias',
        f'{BLOCK}cpe2.bias': f'{block}.cpe2.bias',
        f'{BLOCK}ln_1.weight': f'{block}.norm1.weight',
        f'{BLOCK}ln_2.weight': f'{block}.norm2.weight',
        f'{BLOCK}mlp.fc1.bias': f'{block}.ffn.layers.0.0.bias',
        f'{BLOCK}mlp.fc2.bias': f'{block}.ffn.layers.1.bias',
        f'{FUSION}alpha': f'{block}.mixer.fusion_alpha',
        f'{MIXER}out_norm.bias': f'{block}.mixer.out_norm.bias',
        'layers.1.downsample.conv.2.norm.bias': (
            'stages.2.downsample.conv.2.bn.bias'
        ),
        'norm.bias': 'norm3.bias',
    }
    assert_moved(original(MODEL), moves)


def test_filters_stand_in_the_order_of_their_dilations(original):
    weights = original(MODEL)
    names = [f'{FUSION}kernel_3{end}' for end in ('_1', '', '_2')]
    for key in names:  # also where the file has them in another order
        weights[key] = torch.randn(weights.pop(key).shape)
    converted = convert_upstream(weights, 'x.pth')['state_dict']
    filters = converted['backbone.stages.0.blocks.0.mixer.fusion_weight']
    assert filters.shape == (3, 128, 3, 3)
    for number, end in enumerate(('', '_1', '_2')):
        one = weights[f'{FUSION}kernel_3{end}']
        assert torch.equal(filters[number], one.squeeze(1))


def test_arch_without_a_name(original, shapes, model_shapes):
    weights = original(MODEL)
    for key in list(weights):
        if key.startswith('layers.2.blocks.7.'):
            del weights[key]
    converted = convert_upstream(weights, 'x.pth')
    arch = converted['meta']['mmssm']['arch']
    assert arch == dict(
        embed_dims=64, depths=[2, 4, 7, 4], ssm_ratio=2.0, mlp_ratio=4.0
    )
    found = {
        key: shape
        for key, shape in shapes(converted['state_dict']).items()
        if 'head' not in key
    }
    assert found == model_shapes(SpatialMamba, arch=arch)


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {f'{FUSION}kernel_11': (128, 1, 11, 11)},
            f"key '{FUSION}kernel_11' is not one of its own",
        ),
        (
            {f'{FUSION}kernel_3_1': None},
            f"key '{FUSION}kernel_3_1' is missing",
        ),
        ({f'{FUSION}kernel_3': None}, f"key '{FUSION}kernel_3' is missing"),
        (
            {f'{FUSION}kernel_3_2': (128, 1, 5, 5)},
            f"key '{FUSION}kernel_3_2' has shape (128, 1, 5, 5) instead of "
            '(128, 1, 3, 3)',
        ),
        (
            {f'{FUSION}kernel_3': (1, 128, 3, 3)},
            f"key '{FUSION}kernel_3' has shape (1, 128, 3, 3)",
        ),
        (
            {f'{FUSION}alpha': (4,)},
            f"key '{FUSION}alpha' has shape (4,) instead of (3,)",
        ),
        (
            {'layers.3.blocks.3.self_attention.Ds': None},
            "key 'layers.3.blocks.3.self_attention.Ds' is missing",
        ),
        (
            {'patch_embed.conv1.norm.num_batches_tracked': None},
            "key 'patch_embed.conv1.norm.num_batches_tracked' is missing",
        ),
        (
            {'patch_embed.conv3.1.conv.weight': ()},
            "key 'patch_embed.conv3.1.conv.weight' has shape ()",
        ),
        (
            {'layers.4.blocks.0.ln_1.weight': (1024,)},
            'it has blocks in the stages [0, 1, 2, 3, 4] instead of',
        ),
        ({'norm.bias': None}, "key 'norm.bias' is missing"),
        ({'head.bias': (10,)}, "key 'head.bias' has shape (10,) instead of"),
    ],
)
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('spatial_mamba', MODEL, changes).startswith(message)


def test_missing_norm_of_a_backbone_has_its_own_name(refusal):
    message = refusal(
        'spatial_mamba', f'{MODEL}_backbone', {'outnorm3.bias': None}
    )
    assert message == "key 'outnorm3.bias' is missing"
