"""What holds for the backbones of one scale, LocalVim and Vim."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope

import mmssm
from mmssm.backbones import LocalVim, Vim
from mmssm.layers.norms import RMSNorm
from mmssm.layers.outputs import MapNorm

ROUTES = ['h v_flip w2 w7_flip', 'h_flip w3 w2_flip', 'v w7']
TOKEN = dict(class_token=True, rope=False)
KINDS = {
    'local-vim': (LocalVim, dict(directions=ROUTES)),
    'local-vim-token': (LocalVim, dict(directions=ROUTES, **TOKEN)),
    'local-vim-search': (LocalVim, dict(directions='search')),
    'vim': (Vim, dict()),
    'vim-rope': (Vim, dict(class_token=False, rope=True)),
}
WITH_TOKEN = ['local-vim-token', 'vim']
FAMILIES = ['local-vim', *WITH_TOKEN]

# Counted on the original implementations, classifier (1000 classes) included.
PARAMETERS = {
    (LocalVim, 'tiny'): 7_994_152,
    (LocalVim, 'tiny-midcls'): 7_994_536,
    (LocalVim, 'small'): 27_783_784,
    (Vim, 'tiny'): 7_148_008,
    (Vim, 'small'): 25_796_584,
    (Vim, 'base'): 97_598_440,
}


def mini_arch(kind, **fields):
    return dict(embed_dims=32, depth=3, d_state=4, **KINDS[kind][1], **fields)


def mini(kind, patch_stride=16, **arguments):
    """A small backbone of one of :data:`KINDS`, for images of 4 x 4 patches.

    Its weights are far from the initial ones.
    """
    torch.manual_seed(0)
    arch = mini_arch(kind, patch_stride=patch_stride)
    model = KINDS[kind][0](arch, **{'img_size': 64, **arguments})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def count(model):
    return sum(p.numel() for p in model.parameters())


def outputs(model, x):
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize('backbone, arch', PARAMETERS)
def test_parameter_count_is_the_originals(backbone, arch):
    with torch.device('meta'):
        model = backbone(arch)
    head = 1000 * (model.arch['embed_dims'] + 1)
    assert count(model) + head == PARAMETERS[backbone, arch]


@pytest.mark.parametrize('stride', [8, 16])
@pytest.mark.parametrize('kind', KINDS)
def test_channels_and_strides_are_those_of_the_outputs(kind, stride):
    x = torch.rand(1, 3, 64, 96)
    model = mini(kind, stride, out_type='featmap', out_indices=(2, 0)).eval()
    with torch.no_grad():
        maps = model(x)
    assert model.out_channels == tuple(y.shape[1] for y in maps)
    assert model.out_strides == (stride, stride)
    # Patches are 16 pixels wide; with a smaller stride, they overlap.
    size = [(length - 16) // stride + 1 for length in (64, 96)]
    assert list(maps[0].shape[2:]) == size
    model = mini(kind, stride).eval()
    with torch.no_grad():
        (vector,) = model(x)
    assert model.out_channels == (vector.shape[1],)
    assert model.out_strides == ()


@pytest.mark.parametrize('kind', KINDS)
def test_out_types(kind):
    """Maps are what the mixers add, normed; vectors the normed sum's."""
    maps = mini(kind, out_type='featmap', out_indices=(0, -1)).eval()
    kept = []
    for layer in maps.layers:
        layer.register_forward_hook(lambda *args: kept.append(args[2]))
    x = torch.randn(2, 3, 50, 81)
    first, last = outputs(maps, x)
    has_token = kind in WITH_TOKEN
    for got, norm, (_, mixed) in zip(
        (first, last), (maps.norm0, maps.norm2), (kept[0], kept[2])
    ):
        assert type(norm) is MapNorm and got.is_contiguous()
        want = F.layer_norm(mixed, (32,), norm.weight, norm.bias)
        assert want.shape == (2, 4 * 6 + has_token, 32)
        if has_token:
            want = torch.cat([want[:, :12], want[:, 13:]], 1)
        want = torch.stack([want[:, i * 6 : i * 6 + 6] for i in range(4)], 2)
        torch.testing.assert_close(got, want.permute(0, 3, 2, 1))
    types = ['avg_featmap', *(['cls_token'] if has_token else [])]
    for out_type in types:
        model = mini(kind, out_type=out_type)
        model.load_state_dict(maps.state_dict(), strict=False)
        (got,) = outputs(model.eval(), x)
        tokens = model.norm(kept[2][0])
        assert type(model.norm) is RMSNorm and model.norm.eps == 1e-5
        if out_type == 'cls_token':
            want = tokens[:, 12]
        elif has_token:
            want = (tokens.sum(1) - tokens[:, 12]) / 24
        else:
            want = tokens.mean(1)
        torch.testing.assert_close(got, want)
    default = mini(kind).eval()
    assert default.out_type == types[-1]
    default.load_state_dict(model.state_dict())
    torch.testing.assert_close(outputs(default, x)[0], got)


@pytest.mark.parametrize('size', [(64, 64), (33, 70), (5, 17), (1, 1)])
@pytest.mark.parametrize('stride', [16, 8])
@pytest.mark.parametrize('kind', KINDS)
def test_any_size_learns(kind, stride, size):
    """Any H x W, and every parameter gets a gradient."""
    rows, columns = (
        len(range(0, max(side - 16, 0) + stride, stride)) for side in size
    )
    for arguments in (dict(), dict(out_type='featmap', out_indices=(1, 2))):
        model = mini(kind, stride, **arguments)
        outs = model(torch.randn(2, 3, *size))
        for out in outs:
            if arguments:
                assert out.shape == (2, 32, rows, columns)
            else:
                assert out.shape == (2, 32)
        sum((out * torch.randn_like(out)).sum() for out in outs).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('stride', [16, 8])
@pytest.mark.parametrize('kind', FAMILIES)
def test_images_are_padded_with_zeros(kind, stride):
    model = mini(kind, stride).eval()
    x = torch.randn(1, 3, 41, 7)
    padded = F.pad(x, (0, 9, 0, 7))
    torch.testing.assert_close(outputs(model, x), outputs(model, padded))
    moved = F.pad(x, (9, 0, 7, 0))
    assert not torch.allclose(outputs(model, x)[0], outputs(model, moved)[0])


@pytest.mark.parametrize('kind', FAMILIES)
def test_batch_items_do_not_mix(kind):
    model = mini(kind).eval()
    x = torch.randn(3, 3, 40, 50)
    whole = outputs(model, x)[0]
    single = torch.cat([outputs(model, x[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    assert outputs(model, x[:0])[0].shape == (0, 32)


@pytest.mark.parametrize('size', [(48, 80), (20, 100), (16, 50)])
def test_transposed_images_and_routes_give_transposed_maps(size):
    """Rows and columns are never mistaken, around a class token, too."""
    routes = ['h v_flip', 'h_flip v h', 'v']
    swapped = ['v h_flip', 'v_flip h v', 'h']
    maps = dict(out_type='featmap', out_indices=(0, 2))
    kind = 'local-vim-token'
    model = mini(kind, img_size=(48, 80), directions=routes, **maps).eval()
    other = mini(kind, img_size=(80, 48), directions=swapped, **maps).eval()
    weights = model.state_dict()
    weights['stem.conv.weight'] = weights['stem.conv.weight'].mT
    # The positions' entries (3, 5), around the class token's.
    table = weights['pos_embed']
    patches = torch.cat([table[:, :7], table[:, 8:]], 1)
    patches = patches.view(1, 3, 5, 32).transpose(1, 2).reshape(1, 15, 32)
    table = torch.cat([patches[:, :7], table[:, 7:8], patches[:, 7:]], 1)
    weights['pos_embed'] = table
    other.load_state_dict(weights)
    x = torch.randn(2, 3, *size)
    for got, want in zip(outputs(other, x.mT), outputs(model, x)):
        torch.testing.assert_close(got, want.mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', FAMILIES)
def test_drop_path_grows_linearly_and_is_for_training(kind):
    model = mini(kind, drop_path_rate=0.9)
    rates = [layer.drop_path.drop_prob for layer in model.layers]
    assert rates == pytest.approx([0, 0.45, 0.9])
    x = torch.randn(4, 3, 64, 64)
    first, second = (outputs(model.train(), x)[0] for _ in range(2))
    assert not torch.allclose(first, second)
    want = outputs(mini(kind, drop_path_rate=0.0).train(), x)[0]
    torch.testing.assert_close(outputs(model.eval(), x)[0], want)


def test_drop_path_is_the_archs_own():
    for backbone, arch, rate in (
        (LocalVim, 'tiny', 0.1),
        (Vim, 'tiny', 0.0),
        (Vim, 'small', 0.05),
    ):
        with torch.device('meta'):
            model = backbone(arch)
        assert model.layers[-1].drop_path.drop_prob == pytest.approx(rate)


@pytest.mark.parametrize('kind', FAMILIES)
def test_frozen_stages(kind):
    model = mini(kind, out_type='featmap', out_indices=(1, 2), frozen_stages=1)
    prefixes = {'stem', 'pos_embed', 'layers.0', 'layers.1', 'norm1'}
    if kind in WITH_TOKEN:
        prefixes.add('cls_token')
    for mode in (True, False, True):
        model.train(mode)
        frozen = [
            n for n, p in model.named_parameters() if not p.requires_grad
        ]
        parts = [name.split('.') for name in frozen]
        assert prefixes == {
            '.'.join(part[: 1 + (part[0] == 'layers')]) for part in parts
        }
        assert not model.layers[1].training and not model.stem.training
        assert model.layers[2].training is model.norm2.training is mode
    outs = model(torch.randn(2, 3, 64, 64))
    sum((o * torch.randn_like(o)).sum() for o in outs).backward()
    assert all(p.grad is None for p in model.layers[1].parameters())
    assert model.layers[2].mixer.conv_weight.grad.abs().max() > 0


def test_nothing_is_frozen_by_default_and_a_vectors_norm_never():
    assert all(p.requires_grad for p in mini('vim').parameters())
    model = mini('vim', frozen_stages=2)
    learning = [n for n, p in model.named_parameters() if p.requires_grad]
    assert learning == ['norm.weight']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('out_type', ['featmap', None])
def test_layer_depth_of_every_parameter(kind, out_type):
    out_indices = (0, 2) if out_type else (-1,)
    model = mini(kind, out_type=out_type, out_indices=out_indices)
    first = [model.pos_embed, *model.stem.parameters()]
    if model.cls_token is not None:
        first.append(model.cls_token)
    expected = {id(p): 0 for p in first}
    for i, layer in enumerate(model.layers):
        expected.update({id(p): i + 1 for p in layer.parameters()})
    norms = [model.norm0, model.norm2] if out_type else [model.norm]
    for norm in norms:
        expected.update({id(p): 4 for p in norm.parameters()})
    names = dict(model.named_parameters())
    assert len(expected) == len(names)
    for name, parameter in names.items():
        depth = (expected[id(parameter)], 5)
        assert model.get_layer_depth(name) == depth, name
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == depth
        # Of another part of the model, as long a name as the prefix.
        other = f'teachers.{name}'
        assert model.get_layer_depth(other, 'backbone.') == (4, 5)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


@pytest.mark.parametrize('kind', FAMILIES)
def test_layer_depth_grows_along_the_forward_pass(kind):
    model = mini(kind)
    called = []
    for name, module in model.named_modules():
        for parameter, _ in module.named_parameters(name, recurse=False):
            if module is not model:  # which ends last but whose are first
                module.register_forward_hook(
                    lambda *_, p=parameter: called.append(p)
                )
    model(torch.randn(1, 3, 64, 64))
    depths = [model.get_layer_depth(name)[0] for name in called]
    assert depths == sorted(depths)
    assert set(depths) == set(range(5))


@pytest.mark.parametrize('kind', FAMILIES)
def test_with_cp_changes_nothing_but_memory(kind):
    x, weight = torch.randn(8, 3, 50, 80), torch.randn(8, 32)
    models = [mini(kind, drop_path_rate=0.5, with_cp=cp) for cp in (0, 1)]
    kept = []
    for model in models:
        torch.manual_seed(1)  # the same paths are dropped
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, n=numbers: n.append(t.numel()) or t, lambda t: t
        ):
            loss = (model.train()(x)[0] * weight).sum()
        loss.backward()
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 2
    for a, b in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize('kind', FAMILIES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_and_16_bit_weights(dtype, kind):
    model = mini(kind).eval()
    x = torch.randn(1, 3, 64, 80)
    want = outputs(model, x)[0]
    with torch.autocast('cpu', dtype=dtype):
        mixed = outputs(model, x)[0]
    low = outputs(model.to(dtype), x.to(dtype))[0]
    assert low.dtype == dtype
    for got in (mixed, low):
        torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('kind', FAMILIES)
def test_compile_and_export_give_the_eager_result(kind):
    """On images of another size, too, whose positions are resized."""
    model = mini(kind, out_type='featmap', out_indices=(0, 2)).eval()
    torch.compiler.reset()  # or those of other models count, too
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        for size in ((33, 48), (64, 64), (50, 100)):  # then sizes are symbols
            x = torch.randn(1, 3, *size)
            want = model(x)
            torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(model, (x,)).module()(x)
    torch.testing.assert_close(exported, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [0, -5, '224', (224, 224, 3), 224.0, (16, 0)])
def test_wrong_image_size_is_named(size):
    with pytest.raises(ValueError, match='img_size must be a number of pixe'):
        mini('vim', img_size=size)


@pytest.mark.parametrize('kind', FAMILIES)
def test_layers_after_the_last_output_are_not_run(kind):
    model = mini(kind, out_type='featmap', out_indices=(0, 1))
    model.layers[2].forward = None  # not to be called
    first, second = model(torch.randn(1, 3, 64, 64))
    assert first.shape == second.shape


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
@pytest.mark.parametrize('kind', FAMILIES)
def test_registered_for_every_scope(scope, kind):
    backbone = KINDS[kind][0]
    name = backbone.__name__
    with DefaultScope.overwrite_default_scope(scope):
        for type_ in (name, f'mmssm.{name}', getattr(mmssm, name)):
            model = MODELS.build(dict(type=type_, arch=mini_arch(kind)))
            assert isinstance(model, backbone)


@pytest.mark.parametrize('kind', FAMILIES)
def test_what_is_no_image_is_refused(kind):
    model = mini(kind)
    with pytest.raises(ValueError, match=r'images must be \(B, channels'):
        model(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match='the image is 0 x 64 pixels'):
        model(torch.zeros(1, 3, 0, 64))


BAD = [
    (dict(out_type='maps'), 'must be one of featmap, avg_featmap, cls_token'),
    (dict(out_indices=(0, 2)), r'of the last layer \(2\).*out_type=.featmap'),
    (dict(out_type='featmap', out_indices=(3,)), 'stages 0 to 2 .neg'),
    (dict(out_type='featmap', out_indices=(-4,)), r'once, got \(-4,\)'),
    (dict(out_type='featmap', out_indices=(-1, 2)), 'each at most once, got'),
    (dict(out_type='featmap', out_indices=()), 'stages 0 to 2 .neg'),
    (dict(out_indices=3), 'each at most once, got 3'),
    (dict(frozen_stages=3), r'must be -1 \(none\) to 2, got 3'),
    (dict(arch='huge'), "no arch 'huge'; known: tiny, "),
    (dict(arch=dict(depths=(1,))), "unknown arch field 'depths'"),
    (dict(arch=dict(class_token=True, rope=True)), 'rotary positions turn'),
]


@pytest.mark.parametrize(
    'kind, arguments, message',
    [(kind, *case) for kind in ('local-vim', 'vim') for case in BAD]
    + [('local-vim', dict(out_type='cls_token'), 'needs an arch with a class')]
    + [('vim-rope', dict(out_type='cls_token'), 'needs an arch with a class')],
)
def test_bad_arguments_are_named_in_one_line(kind, arguments, message):
    backbone = KINDS[kind][0]
    with pytest.raises(ValueError, match=message) as caught:
        backbone(**{'arch': mini_arch(kind), **arguments})
    assert '\n' not in str(caught.value)
