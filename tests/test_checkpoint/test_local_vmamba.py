"""LocalVMamba's files."""

import pytest

MODEL = 'local_vmamba_tiny'
MERGE = 'layers.0.blocks.0.op.multi_scan.'


def test_values_go_where_they_belong(original, assert_moved):
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
        'layers.1.downsample.norm.bias': 'stages.2.downsample.norm.bias',
        'classifier.norm.bias': 'norm3.bias',
    }
    assert_moved(original(MODEL), moves)


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
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('local_vmamba', MODEL, changes).startswith(message)
