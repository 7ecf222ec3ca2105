"""GrootV's files, which FractalMamba takes."""

import pytest

MODEL = 'groot_v_tiny'
BLOCK = 'levels.0.blocks.0.'


def test_values_go_where_they_belong(original, assert_moved):
    block = 'stages.0.blocks.0'
    moves = {
        'patch_embed.conv1.bias': 'stem.conv1.bias',
        'patch_embed.norm1.1.bias': 'stem.norm1.bias',
        'patch_embed.conv2.bias': 'stem.conv2.bias',
        'patch_embed.norm2.1.bias': 'stem.norm2.bias',
        f'{BLOCK}norm1.0.bias': f'{block}.norm1.bias',
        f'{BLOCK}norm2.0.bias': f'{block}.norm2.bias',
        f'{BLOCK}TreeSSM.Ds': f'{block}.mixer.Ds',
        f'{BLOCK}TreeSSM.h_norm.bias': f'{block}.mixer.h_norm.bias',
        f'{BLOCK}TreeSSM.out_norm.bias': f'{block}.mixer.out_norm.bias',
        f'{BLOCK}mlp.fc1.bias': f'{block}.ffn.layers.0.0.bias',
        f'{BLOCK}mlp.fc2.bias': f'{block}.ffn.layers.1.bias',
        'levels.1.norm.0.bias': 'norm1.bias',
        'levels.1.downsample.norm.1.bias': 'stages.2.downsample.norm.bias',
        'conv_head.1.0.running_mean': 'head.bn.running_mean',
        'head.bias': 'head.fc.bias',
    }
    assert_moved(original(MODEL), moves)


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {f'{BLOCK}TreeSSM.h_norm.bias': None},
            f"key '{BLOCK}TreeSSM.h_norm.bias' is missing",
        ),
        (
            {f'{BLOCK}TreeSSM.A_logs': (160, 2)},
            f"key '{BLOCK}TreeSSM.A_logs' has shape (160, 2) instead of",
        ),
        ({'conv_head.0.weight': None}, "key 'conv_head.0.weight' is missing"),
        (
            {'conv_head.1.0.bias': None},
            "key 'conv_head.1.0.bias' is missing",
        ),
        ({'head.weight': (1000, 640)}, "key 'head.weight' has shape (1000"),
        ({'levels.1.norm.0.bias': None}, "key 'levels.1.norm.0.bias' is mis"),
        ({'gamma': (1,)}, "key 'gamma' is not one of its own"),
    ],
)
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('groot_v', MODEL, changes).startswith(message)
