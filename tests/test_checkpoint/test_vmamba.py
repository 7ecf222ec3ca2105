import pytest

from mmssm.backbones import VMamba
from mmssm.checkpoint import convert_upstream
from mmssm.utils import CheckpointError

BLOCK = 'layers.0.blocks.0.'


def test_values_go_where_they_belong(original, assert_moved):
    moves = {
        'patch_embed.7.weight': 'stem.norm2.weight',
        f'{BLOCK}norm.weight': 'stages.0.blocks.0.norm1.weight',
        f'{BLOCK}op.Ds': 'stages.0.blocks.0.mixer.Ds',
        f'{BLOCK}norm2.weight': 'stages.0.blocks.0.norm2.weight',
        f'{BLOCK}mlp.fc2.bias': 'stages.0.blocks.0.ffn.layers.1.bias',
        'layers.1.downsample.3.bias': 'stages.2.downsample.norm.bias',
        'classifier.norm.bias': 'norm3.bias',
    }
    assert_moved(original('vmamba_tiny_s1l8'), moves)


def old_names(weights):
    old = {}
    for key, value in weights.items():
        key = key.replace('patch_embed.0.', 'patch_embed.proj.')
        key = key.replace('patch_embed.2.', 'patch_embed.norm.')
        key = key.replace('.norm.', '.ln_1.') if '.blocks.' in key else key
        key = key.replace('.op.', '.self_attention.')
        old[key.removeprefix('classifier.')] = value
    return old


def test_old_names(original, shapes):
    old = old_names(original('vanilla_vmamba_tiny'))
    assert 'layers.0.blocks.0.ln_1.weight' in old
    assert 'layers.0.downsample.norm.weight' in old
    assert 'head.weight' in old
    converted = convert_upstream(dict(model=old), 'x.pth')
    new = convert_upstream(original('vanilla_vmamba_tiny'), 'x.pth')
    assert converted['meta']['mmssm']['arch'] == 'vanilla-tiny'
    assert shapes(converted['state_dict']) == shapes(new['state_dict'])


def test_linear_layers_stored_as_convolutions(original, shapes, model_shapes):
    weights = original('vmamba_tiny_s1l8')
    changed = 0
    for key, value in weights.items():
        if key.endswith(('proj.weight', 'fc1.weight', 'fc2.weight')):
            weights[key] = value[:, :, None, None]
            changed += 1
    assert changed == 4 * 14
    converted = convert_upstream(weights, 'x.pth')['state_dict']
    found = {k: v for k, v in shapes(converted).items() if 'head' not in k}
    assert found == model_shapes(VMamba, arch='tiny-s1l8')


def test_arch_without_a_name(original, shapes, model_shapes):
    weights = original('vmamba_tiny_s1l8')
    for key in list(weights):
        if key.startswith('layers.2.blocks.7.'):
            del weights[key]
    converted = convert_upstream(weights, 'x.pth')
    arch = converted['meta']['mmssm']['arch']
    assert arch == dict(
        embed_dims=96,
        depths=[2, 2, 7, 2],
        d_state=1,
        ssm_ratio=1.0,
        mlp_ratio=4.0,
        stem='conv',
        downsample='conv',
        gate=False,
        conv_bias=False,
        mixer='ss2d',
    )
    found = {
        key: shape
        for key, shape in shapes(converted['state_dict']).items()
        if 'head' not in key
    }
    assert found == model_shapes(VMamba, arch=arch)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'pos_embed': (1,)}, "key 'pos_embed' is not one of its own"),
        (
            {f'{BLOCK}op.skip.weight': (1,)},
            f"key '{BLOCK}op.skip.weight' is not one of its own",
        ),
        ({f'{BLOCK}op.A_logs': None}, f"key '{BLOCK}op.A_logs' is missing"),
        (
            {'layers.3.blocks.1.op.Ds': None},
            "key 'layers.3.blocks.1.op.Ds' is missing",
        ),
        (
            {f'{BLOCK}op.dt_projs_weight': None},
            f"key '{BLOCK}op.dt_projs_weight' is missing",
        ),
        (
            {'classifier.norm.bias': None},
            "key 'classifier.norm.bias' is missing",
        ),
        (
            {'classifier.norm.bias': None, 'classifier.norm.weight': None},
            "key 'classifier.norm.weight' is missing",
        ),
        (
            {'classifier.head.bias': None},
            "key 'classifier.head.bias' is missing",
        ),
        (
            {'patch_embed.2.weight': None},
            "key 'patch_embed.2.weight' is missing",
        ),
        (
            {'layers.1.blocks.0.norm.weight': (7,)},
            "key 'layers.1.blocks.0.norm.weight' has shape (7,) instead of "
            '(192,)',
        ),
        (
            {'layers.0.downsample.1.weight': (192, 96, 2, 2)},
            "key 'layers.0.downsample.1.weight' has shape (192, 96, 2, 2) "
            'instead of (192, 96, 3, 3)',
        ),
        (
            {f'{BLOCK}op.out_proj.weight': (96, 24, 2, 2)},
            f"key '{BLOCK}op.out_proj.weight' has shape (96, 24, 2, 2)",
        ),
        (
            {f'{BLOCK}op.x_proj_weight': (4,)},
            f"key '{BLOCK}op.x_proj_weight' has shape (4,)",
        ),
        (
            {'classifier.head.weight': (1000, 5)},
            "key 'classifier.head.weight' has shape (1000, 5) instead of "
            '(1000, 768)',
        ),
        (
            {'outnorm3.weight': (768,)},
            "its keys 'classifier.norm.weight' and 'outnorm3.weight' mean the "
            'same',
        ),
    ],
)
def test_wrong_key_or_shape_is_named(refusal, changes, message):
    assert refusal('vmamba', 'vmamba_tiny_s1l8', changes).startswith(message)


def test_old_file_is_told_its_own_names(original):
    weights = old_names(original('vanilla_vmamba_tiny'))
    for key in ('layers.2.blocks.8.ln_1.bias', 'norm.weight'):
        damaged = {k: v for k, v in weights.items() if k != key}
        with pytest.raises(CheckpointError, match=f"'{key}' is missing"):
            convert_upstream(damaged, 'x.pth')


def test_arch_that_cannot_be(refusal):
    """A file of Mamba-2 heads with VMamba's first gate."""
    changes = {f'{BLOCK}op.in_proj.weight': (192, 96)}
    message = refusal('vmamba', 'vmamba_tiny_m2', changes)
    assert message.startswith('its keys and shapes show an arch that no model')
