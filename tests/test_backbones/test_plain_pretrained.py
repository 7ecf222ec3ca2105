"""Files of plain models load whole, their positions fitted, or not at all."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint
from torch import nn

from mmssm.backbones import LocalVim, Vim
from mmssm.checkpoint.strict_load import load_exactly, open_checkpoint

DIRECTIONS = ['h v_flip w2', 'h_flip v']
ROPE = dict(embed_dims=32, depth=2, d_state=4, directions=DIRECTIONS)
TOKEN = dict(ROPE, class_token=True, rope=False)
KINDS = {
    'local-vim': (LocalVim, ROPE),
    'local-vim-token': (LocalVim, TOKEN),
    'vim': (Vim, dict(embed_dims=32, depth=2, d_state=4)),
}


@pytest.fixture
def classifier_file(tmp_path):
    """Writes a file as classification training does: backbone and head."""

    def write(kind, **options):
        torch.manual_seed(0)
        backbone, arch = KINDS[kind]
        model = backbone(arch, **{'img_size': 64, **options})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        weights = {f'backbone.{k}': v for k, v in model.state_dict().items()}
        weights['head.fc.weight'] = torch.zeros(10, 32)
        path = tmp_path / 'classifier.pth'
        torch.save(dict(meta=dict(), state_dict=weights), path)
        return path, model

    return write


def pretrained(kind, path, arch=None, **options):
    backbone, own_arch = KINDS[kind]
    model = backbone(
        arch or own_arch,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        **options,
    )
    model.init_weights()
    return model


def resized(table, to):
    """Entries (L, C) of a square map, on another grid."""
    side = round(len(table) ** 0.5)
    maps = table.t().reshape(1, -1, side, side)
    maps = F.interpolate(maps, to, mode='bicubic', align_corners=False)
    return maps[0].flatten(1).t()


def fitted(key, value, to):
    """What a model with a grid of an even number of patches makes of it."""
    if key.startswith('rope.'):
        return resized(value, to)
    if len(value[0]) == 16:
        return resized(value[0], to)[None]
    patches = resized(torch.cat([value[0, :8], value[0, 9:]]), to)
    middle = len(patches) // 2
    parts = [patches[:middle], value[0, 8:9], patches[middle:]]
    return torch.cat(parts)[None]


@pytest.mark.parametrize('kind', KINDS)
def test_classifier_feeds_a_segmentor_of_another_image_size(
    classifier_file, kind
):
    path, source = classifier_file(kind)
    options = dict(out_type='featmap', out_indices=(0, 1), img_size=(90, 40))
    model = pretrained(kind, path, **options)
    assert model.grid == (6, 3)
    own = model.state_dict()
    tables = {'pos_embed', 'rope.cos', 'rope.sin'} & set(own)
    assert len(tables) == (3 if kind == 'local-vim' else 1)
    for key, value in source.state_dict().items():
        if key in tables:
            value = fitted(key, value, (6, 3))
            torch.testing.assert_close(own[key], value, msg=key)
        elif key != 'norm.weight':
            assert torch.equal(own[key], value), key
    for norm in (model.norm0, model.norm1):  # not in the file: fresh
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    assert set(own) - set(source.state_dict()) == {
        f'norm{i}.{end}' for i in (0, 1) for end in ('weight', 'bias')
    }


@pytest.mark.parametrize('kind', KINDS)
def test_positions_are_resized_however_weights_are_loaded(
    classifier_file, kind
):
    """By PyTorch, by ``load_from`` in a training, and for a test."""
    path, source = classifier_file(kind)
    backbone, arch = KINDS[kind]
    weights = source.state_dict()

    def build():
        model = nn.Module()
        model.backbone = backbone(arch, img_size=(90, 40))
        model.head = nn.Module()
        model.head.fc = nn.Linear(32, 10, bias=False)
        return model

    alone = backbone(arch, img_size=(90, 40))
    alone.load_state_dict(weights)
    trained, tested = build(), build()
    trained.backbone.init_weights()
    load_checkpoint(trained, str(path), 'cpu', strict=True)
    load_exactly(tested, open_checkpoint(str(path)))
    want = fitted('pos_embed', weights['pos_embed'], (6, 3))
    for model in (alone, trained.backbone, tested.backbone):
        torch.testing.assert_close(model.pos_embed.data, want)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(90, 40), (64, 64), (33, 100)])
def test_positions_resized_on_loading_are_those_resized_in_use(
    classifier_file, kind, size
):
    path, source = classifier_file(kind)
    model = pretrained(kind, path, img_size=size)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        got, want = model.eval()(x)[0], source.eval()(x)[0]
    torch.testing.assert_close(got, want)


def test_file_with_rms_norms_feeds_layer_norms(classifier_file):
    path, source = classifier_file('local-vim')
    maps = dict(out_type='featmap', img_size=64)
    model = pretrained('local-vim', path, norm='layer', **maps)
    for layer, other in zip(model.layers, source.layers):
        assert type(layer.norm) is nn.LayerNorm and layer.norm.eps == 1e-5
        assert torch.equal(layer.norm.weight, other.norm.weight)
        assert (layer.norm.bias == 0).all()
        assert torch.equal(layer.mixer.conv_bias, other.mixer.conv_bias)
    with pytest.raises(RuntimeError, match='missing keys: 2 .*in_proj.weight'):
        state = torch.load(path)
        for i in (0, 1):
            del state['state_dict'][
                f'backbone.layers.{i}.mixer.in_proj.weight'
            ]
        torch.save(state, path)
        pretrained('local-vim', path, norm='layer', **maps)


def test_gates_biases_may_not_be_missing(classifier_file):
    path, _ = classifier_file('local-vim')
    checkpoint = torch.load(path)
    lost = 'backbone.layers.1.mixer.merge.norm.bias'
    del checkpoint['state_dict'][lost]
    torch.save(checkpoint, path)
    for norm in ('rms', 'layer'):
        with pytest.raises(RuntimeError, match='layers.1.mixer.merge.norm.b'):
            pretrained('local-vim', path, img_size=64, norm=norm)


@pytest.mark.parametrize('size', [(128, 512), (224, 448)])
@pytest.mark.parametrize('kind', ['local-vim', 'vim'])
def test_positions_of_an_oblong_grid_come_back(classifier_file, kind, size):
    """As many as on a square: 8 x 32 is 16 x 16."""
    path, source = classifier_file(kind, img_size=size)
    model = pretrained(kind, path, img_size=size)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_file_with_layer_norms_keeps_their_biases(classifier_file):
    path, source = classifier_file('local-vim', norm='layer')
    model = pretrained('local-vim', path, norm='layer', img_size=64)
    assert source.layers[1].norm.bias.abs().max() > 0
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    with pytest.raises(RuntimeError, match=r'unknown keys: .*0\.norm\.bias'):
        pretrained('local-vim', path, img_size=64)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(embed_dims=48), r'other shapes: .*\(1, 1[67], 32\) instead of'),
        (dict(depth=3), r'missing keys: .*layers\.2\.norm'),
        (dict(depth=1), r'unknown keys: .*layers\.1\.norm'),
        (dict(d_state=8), r'other shapes: .*x_proj_weight'),
        (dict(patch_size=8, patch_stride=8), r'other shapes: .*stem\.conv'),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_another_arch_is_refused(classifier_file, kind, changes, message):
    path, _ = classifier_file(kind)
    arch = {**KINDS[kind][1], **changes}
    if 'directions' in arch:
        arch['directions'] = ['h v w2', 'v h', 'h v w2'][: arch['depth']]
    with pytest.raises(RuntimeError, match=message) as caught:
        pretrained(kind, path, arch, img_size=64)
    assert '\n' not in str(caught.value) and 'Set arch' in str(caught.value)


@pytest.mark.parametrize('img_size', [64, 96])
def test_class_tokens_file_and_model_must_agree(classifier_file, img_size):
    path, _ = classifier_file('local-vim-token')
    with pytest.raises(RuntimeError, match='unknown keys: 1 .*cls_token'):
        pretrained('local-vim', path, img_size=img_size)
    without = dict(KINDS['vim'][1], class_token=False)
    path, _ = classifier_file('vim')
    with pytest.raises(RuntimeError, match='unknown keys: 1 .*cls_token'):
        pretrained('vim', path, without, img_size=img_size)
    path, _ = classifier_file('local-vim')
    with pytest.raises(RuntimeError, match='missing keys: .*cls_token'):
        pretrained('local-vim-token', path, img_size=img_size)


def test_other_routes_numbers_are_refused(classifier_file):
    path, _ = classifier_file('local-vim')
    other = dict(ROPE, directions=['h v_flip w2', 'h_flip v w2'])
    with pytest.raises(RuntimeError, match=r'layers\.1\.mixer\.conv_weight'):
        pretrained('local-vim', path, other, img_size=64)


@pytest.mark.parametrize(
    'backbone, name, routes',
    [
        (LocalVim, 'local_vim_tiny_cls', [f'A_log_{k}' for k in range(4)]),
        (Vim, 'vim_tiny_cls', ['A_log', 'A_b_log']),
    ],
)
def test_original_file_loads_directly(
    tmp_path, golden, backbone, name, routes
):
    weights = golden(name).state_dict()
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(model=weights, epoch=300), path)
    model = backbone(
        'tiny',
        img_size=256,
        out_type='featmap',
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    model.init_weights()
    rates = [weights[f'layers.3.mixer.{route}'] for route in routes]
    assert torch.equal(model.layers[3].mixer.A_logs, torch.cat(rates))
    own, old = model.pos_embed[0], weights['pos_embed'][0]
    has_token = backbone is Vim
    if has_token:
        assert torch.equal(own[128], old[98])
        own, old = (
            torch.cat([t[:m], t[m + 1 :]]) for t, m in ((own, 128), (old, 98))
        )
    torch.testing.assert_close(own, resized(old, (16, 16)))


def test_refusal_names_the_arch_the_file_holds(tmp_path, golden):
    path = tmp_path / 'tiny.pth'
    torch.save({'model': golden('vim_tiny_cls').state_dict()}, path)
    cfg = dict(type='Pretrained', checkpoint=str(path))
    model = Vim('small', init_cfg=cfg)
    with pytest.raises(RuntimeError, match="holds arch 'tiny' and .*'small'"):
        model.init_weights()
