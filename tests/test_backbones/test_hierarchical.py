"""What holds for every backbone of several stages."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import mmssm
from mmssm.backbones import (
    FractalMamba,
    LocalVMamba,
    SpatialMamba,
    VMamba,
)

# The patch stem drops what is left of an image's size divided by 4.
PATCH = dict(stem='patch', downsample='merging', gate=True, mlp_ratio=0.0)
SSD = dict(mixer='ssd', d_state=8, act='GELU', ssm_init='uniform')
KINDS = {
    'vmamba': (VMamba, dict()),
    'vmamba-patch': (VMamba, PATCH),
    'vmamba-ssd': (VMamba, SSD),
    'spatial-mamba': (SpatialMamba, dict()),
    'local-vmamba': (LocalVMamba, dict()),
    'local-vmamba-search': (LocalVMamba, dict(directions='search')),
    'fractal-mamba': (FractalMamba, dict()),
}
FAMILIES = ['vmamba', 'spatial-mamba', 'local-vmamba', 'fractal-mamba']
PATCH_STEMS = ['vmamba-patch', 'local-vmamba', 'local-vmamba-search']
DIRECTIONS = ['h v_flip w2 w7_flip', 'h_flip w3 w2_flip', 'v w7 h w3_flip']

# Counted on the original implementations, classifier (1000 classes) included.
# FractalMamba's head is more than a linear layer: test_golden.py counts it.
PARAMETERS = {
    (VMamba, 'vanilla-tiny'): 22_893_448,
    (VMamba, 'vanilla-small'): 44_417_416,
    (VMamba, 'vanilla-base'): 76_254_056,
    (VMamba, 'tiny-s2l5'): 30_705_832,
    # Of ChangeMamba's encoder; the classifier is added.
    (VMamba, 'tiny-s2l4'): 28_761_640,
    (VMamba, 'small-s2l15'): 50_147_752,
    (VMamba, 'base-s2l15'): 88_557_800,
    (VMamba, 'tiny-s1l8'): 30_249_064,
    (VMamba, 'small-s1l20'): 49_012_840,
    (VMamba, 'base-s1l20'): 86_614_504,
    (VMamba, 'tiny-m2'): 25_340_296,
    (SpatialMamba, 'tiny'): 26_748_862,
    (SpatialMamba, 'small'): 43_074_280,
    (SpatialMamba, 'base'): 95_745_592,
    (LocalVMamba, 'tiny'): 25_527_160,
    (LocalVMamba, 'small'): 49_748_536,
}


def mini_arch(kind, depths=(1, 1, 1, 1)):
    """A small arch of one of :data:`KINDS`."""
    backbone, fields = KINDS[kind]
    arch = dict(embed_dims=16, depths=depths, **fields)
    if backbone is LocalVMamba:
        routes = [DIRECTIONS[i % 3] for i in range(sum(depths))]
        arch.setdefault('directions', routes)
    return arch


def mini(kind, depths=(1, 1, 1, 1), **arguments):
    """A small backbone of one of :data:`KINDS`."""
    return KINDS[kind][0](mini_arch(kind, depths), **arguments)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('backbone, arch', PARAMETERS)
def test_parameter_count_is_the_originals(backbone, arch):
    with torch.device('meta'):
        model = backbone(arch)
    width = model.arch['embed_dims'] * 8
    assert count(model) + 1000 * (width + 1) == PARAMETERS[backbone, arch]


@pytest.mark.parametrize(
    'backbone, arch, parameters',
    [
        (VMamba, 'tiny-s1l8', 29_481_408),
        (SpatialMamba, 'tiny', 26_236_758),
        (LocalVMamba, 'tiny', 24_759_504),
    ],
)
def test_parameter_count_with_output_norms(backbone, arch, parameters):
    with torch.device('meta'):
        model = backbone(arch, out_indices=(0, 1, 2, 3))
    assert count(model) == parameters


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(64, 64), (33, 70), (4, 4), (4, 100)])
def test_any_size_learns(kind, size):
    """Any H x W, down to one patch, and every parameter gets a gradient."""
    model = mini(kind, out_indices=(0, 1, 2, 3))
    outs = model(torch.randn(2, 3, *size))
    half_up = kind not in PATCH_STEMS
    height, width = ((s + 3) // 4 if half_up else s // 4 for s in size)
    for i, out in enumerate(outs):
        assert out.shape == (2, 16 * 2**i, height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    sum((o * torch.randn_like(o)).sum() for o in outs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('kind', KINDS)
def test_channels_and_strides_are_those_of_the_maps(kind):
    for indices in ((3,), (0, 1, 2, 3), (2, 0)):
        model = mini(kind, out_indices=indices).eval()
        with torch.no_grad():
            maps = model(torch.rand(1, 3, 64, 96))
        assert model.out_channels == tuple(y.shape[1] for y in maps)
        assert model.out_strides == tuple(64 // y.shape[2] for y in maps)
        assert model.out_strides == tuple(96 // y.shape[3] for y in maps)


@pytest.mark.parametrize(
    'given, indices', [(2, (2,)), (-1, (3,)), ((0, -2), (0, 2)), ([1], (1,))]
)
def test_out_indices_as_the_libraries_take_them(given, indices):
    model = mini('vmamba', out_indices=given)
    assert model.out_indices == indices
    assert len(model(torch.rand(1, 3, 32, 32))) == len(indices)


@pytest.mark.parametrize('kind', FAMILIES)
def test_batch_items_do_not_mix(kind):
    model = mini(kind).eval()
    x = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        whole = model(x)[0]
        single = torch.cat([model(x[i : i + 1])[0] for i in range(3)])
        assert model(x[:0])[0].shape == (0, 128, 2, 2)
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', FAMILIES)
def test_drop_path_grows_linearly(kind):
    model = mini(kind, (1, 2, 1), drop_path_rate=0.3, out_indices=(2,))
    blocks = [block for stage in model.stages for block in stage.blocks]
    paths = [[block.drop_path for block in blocks]]
    if kind != 'local-vmamba':  # which has no FFN
        paths.append([block.ffn.dropout_layer for block in blocks])
    for path in paths:
        rates = [p.drop_prob for p in path]
        assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize('kind', FAMILIES)
def test_frozen_stages(kind):
    model = mini(kind, out_indices=(0, 1), frozen_stages=0).train()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    prefixes = {
        n.split('.')[0] + n.split('.')[1] * ('stages' in n) for n in frozen
    }
    # Of stage 1, only the downsampling before its blocks.
    assert prefixes == {'stem', 'stages0', 'stages1', 'norm0'}
    assert not any(name.startswith('stages.1.blocks') for name in frozen)
    assert not model.stages[0].training and model.stages[1].training
    before = {k: v.clone() for k, v in model.stem.state_dict().items()}
    model(torch.randn(2, 3, 32, 32))
    for key, value in model.stem.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('kind', KINDS)
def test_layer_depth_of_every_parameter(kind):
    """Each block is a layer; downsampling is in that of the block before."""
    model = mini(kind, (2, 1, 3, 1), out_indices=(0, 1, 2, 3))
    expected = {id(p): 0 for p in model.stem.parameters()}
    layer = 0
    for i, stage in enumerate(model.stages):
        if stage.downsample is not None:
            rest = stage.downsample.parameters()
            expected.update({id(p): layer for p in rest})
        for block in stage.blocks:
            layer += 1
            expected.update({id(p): layer for p in block.parameters()})
        # A norm that feeds the next stage has learned with the stage's.
        feeds = model.norms_feed_stages and i < 3
        norm = getattr(model, f'norm{i}').parameters()
        expected.update({id(p): layer if feeds else 8 for p in norm})
    names = dict(model.named_parameters())
    assert len(expected) == len(names)
    for name, parameter in names.items():
        depth = (expected[id(parameter)], 9)
        assert model.get_layer_depth(name) == depth, name
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == depth
        # Of another part of the model, as long a name as the prefix.
        other = f'teachers.{name}'
        assert model.get_layer_depth(other, 'backbone.') == (8, 9)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (8, 9)


@pytest.mark.parametrize('kind', KINDS)
def test_layer_depth_grows_along_the_forward_pass(kind):
    model = mini(kind, (1, 2, 1, 1))
    called = []
    for name, module in model.named_modules():
        for parameter, _ in module.named_parameters(name, recurse=False):
            module.register_forward_hook(
                lambda *_, p=parameter: called.append(p)
            )
    model(torch.randn(1, 3, 64, 64))
    depths = [model.get_layer_depth(name)[0] for name in called]
    assert depths == sorted(depths)
    assert set(depths) == set(range(7))


def test_layer_depth_is_that_of_mmpretrains_swin():
    from mmpretrain.models import SwinTransformer

    depths = (2, 1, 2, 1)
    model = mini('vmamba', depths, out_indices=(0, 1, 2, 3))
    swin = SwinTransformer(
        dict(embed_dims=16, depths=depths, num_heads=(1, 1, 1, 1)),
        out_indices=(0, 1, 2, 3),
    )
    parts = [f'norm{i}.' for i in range(4)]
    parts += [
        f'stages.{i}.blocks.{j}.'
        for i, depth in enumerate(depths)
        for j in range(depth)
    ]
    pairs = [('stem.', 'patch_embed.'), *zip(parts, parts)]
    pairs += [
        (f'stages.{i + 1}.downsample.', f'stages.{i}.downsample.')
        for i in range(3)
    ]
    for own, its in pairs:
        (layer,), (expected,) = (
            {
                backbone.get_layer_depth(name)
                for name, _ in backbone.named_parameters()
                if name.startswith(part)
            }
            for backbone, part in ((model, own), (swin, its))
        )
        assert layer == expected, own


@pytest.mark.parametrize('kind', FAMILIES)
def test_with_cp_changes_nothing_but_memory(kind):
    torch.manual_seed(0)
    plain = mini(kind, drop_path_rate=0.0)
    saving = mini(kind, drop_path_rate=0.0, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    weight = torch.randn(1, 128, 1, 1)
    for model in (plain, saving):
        (model(x)[0] * weight).sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters()):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(plain.buffers(), saving.buffers()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('autocast', [False, True])
def test_inference_equals_training_forward(monkeypatch, kind, autocast):
    """Without gradients large maps are worked on in slices."""
    monkeypatch.setattr('mmssm.layers.slices.SLICE_BYTES', 2**12)
    torch.manual_seed(0)
    model = mini(kind, out_indices=(0, 1, 2, 3)).eval()
    x = torch.randn(2, 3, 72, 50)
    with torch.autocast('cpu', enabled=autocast):
        want = model(x)
        with torch.no_grad():
            got = model(x)
    tolerance = 0.1 if autocast else 1e-4
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        torch.testing.assert_close(
            a.float(), b.detach().float(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize('kind', [*FAMILIES, 'vmamba-ssd'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_and_16_bit_weights(dtype, kind):
    torch.manual_seed(0)
    model = mini(kind).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = model(x)[0]
        with torch.autocast('cpu', dtype=dtype):
            mixed = model(x)[0]
        low = model.to(dtype)(x.to(dtype))[0]
    for got in (mixed, low):
        torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)


# inductor's C++ compiler takes a quarter of a minute for each new model.
@pytest.mark.parametrize(
    'kind, backend',
    [
        ('vmamba', 'inductor'),
        ('vmamba-ssd', 'inductor'),
        ('spatial-mamba', 'aot_eager'),
        ('local-vmamba', 'aot_eager'),
        ('local-vmamba-search', 'aot_eager'),
        ('fractal-mamba', 'aot_eager'),
    ],
)
def test_compile_and_export_give_the_eager_result(kind, backend):
    torch.manual_seed(0)
    model = mini(kind, (1,), out_indices=(0,)).eval()
    torch.compiler.reset()  # or those of other models count, too
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        want = model(x)
        exported = torch.export.export(model, (x,)).module()(x)
        compiled = torch.compile(model, fullgraph=True, backend=backend)(x)
    for got in (exported, compiled):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', FAMILIES)
def test_compiled_gradients(kind):
    torch.manual_seed(0)
    model = mini(kind, (1, 1), drop_path_rate=0.0, out_indices=(1,)).eval()
    torch.compiler.reset()  # or those of other models count, too
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.randn(1, 3, 32, 32)
    weight = torch.randn(1, 32, 4, 4)
    grads = []
    for f in (model, compiled):
        model.zero_grad()
        (f(x)[0] * weight).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
@pytest.mark.parametrize('kind', FAMILIES)
def test_registered_for_every_scope(scope, kind):
    backbone = KINDS[kind][0]
    name = backbone.__name__
    arch = mini_arch(kind)
    with DefaultScope.overwrite_default_scope(scope):
        for type_ in (name, f'mmssm.{name}', getattr(mmssm, name)):
            model = MODELS.build(dict(type=type_, arch=arch))
            assert isinstance(model, backbone)


@pytest.mark.parametrize('kind', KINDS)
def test_too_small_an_image_is_refused(kind):
    model = mini(kind)
    with pytest.raises(ValueError, match='smaller than one patch'):
        model(torch.zeros(1, 3, 3, 64))
    with pytest.raises(ValueError, match=r'images must be \(B, channels'):
        model(torch.zeros(3, 64, 64))


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(arch=dict(depth=(1,))), ValueError, "arch field 'depth'"),
        (dict(drop_path=0.1), TypeError, "unexpected .* 'drop_path'"),
        (dict(out_indices=(0, 4)), ValueError, 'stages 0 to 3 .negative'),
        (dict(out_indices=()), ValueError, 'stages 0 to 3 '),
        (dict(out_indices=4), ValueError, 'each at most once, got 4'),
        (dict(out_indices=(3, -1)), ValueError, 'each at most once, got'),
        (dict(out_indices=(3, 3)), ValueError, 'each at most once, got'),
        (dict(arch=None), ValueError, 'a name or a dict, got None'),
        (dict(frozen_stages=4), ValueError, r'-1 \(none\) to 3, got 4'),
    ],
)
@pytest.mark.parametrize('kind', FAMILIES)
def test_bad_arguments_are_named_in_one_line(kind, arguments, error, message):
    backbone = KINDS[kind][0]
    with pytest.raises(error, match=message) as caught:
        backbone(**arguments)
    assert '\n' not in str(caught.value)
