"""LocalVim's own: its directions, its norms, its initial values."""

import pytest
import torch
from torch import nn

from mmssm.backbones import LocalVim
from mmssm.layers.norms import RMSNorm

ROUTES = ['h v_flip w2 w7_flip', 'h_flip w3 w2_flip', 'v w7']
MINI = dict(embed_dims=32, depth=3, d_state=4, directions=ROUTES)
TOKEN = dict(class_token=True, rope=False)


def test_supernet_has_the_originals_parameters():
    with torch.device('meta'):
        model = LocalVim(dict(embed_dims=128), directions='search')
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters + 1000 * (128 + 1) == 5_473_288
    for layer in model.layers:
        assert layer.mixer.merge.weights.shape == (8,)


@pytest.mark.parametrize('arch', ['tiny', 'tiny-midcls'])
def test_directions_are_those_of_the_golden_case(golden, arch):
    with torch.device('meta'):
        names = [m.mixer.routes for m in LocalVim(arch).layers]
    case = golden('local_vim_tiny_cls')
    assert len(names) == 20
    assert names == [
        tuple(entry) for entry in case.meta['kwargs']['directions']
    ]


def test_small_takes_the_papers_directions():
    with torch.device('meta'):
        small, tiny = (
            [m.mixer.routes for m in LocalVim(arch).layers]
            for arch in ('small', 'tiny')
        )
    assert small == tiny


def test_directions_are_a_choice():
    """They replace those of the arch, which keeps its name."""
    model = LocalVim(dict(MINI, directions='search'), directions=ROUTES)
    names = [layer.mixer.routes for layer in model.layers]
    assert names == [tuple(entry.split()) for entry in ROUTES]
    with torch.device('meta'):
        named = LocalVim('tiny', directions=['h'] * 20)
    assert named.arch_name == 'tiny'
    assert named.layers[3].mixer.routes == ('h',)


@pytest.mark.parametrize('fields', [dict(), TOKEN])
def test_released_inverse_differs_on_maps_that_are_not_square(fields):
    torch.manual_seed(0)
    right = LocalVim(dict(MINI, **fields), img_size=64).eval()
    released = LocalVim(
        dict(MINI, **fields), img_size=64, released_inverse=True
    ).eval()
    with torch.no_grad():
        for parameter in right.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        released.load_state_dict(right.state_dict())
        for size, equal in (((48, 48), True), ((48, 80), False)):
            x = torch.randn(1, 3, *size)
            assert torch.allclose(right(x)[0], released(x)[0]) is equal


@pytest.mark.parametrize(
    'norm, kind', [('rms', RMSNorm), ('layer', nn.LayerNorm)]
)
def test_norms_are_a_choice(norm, kind):
    model = LocalVim(MINI, norm=norm)
    for module in (model.norm, *(layer.norm for layer in model.layers)):
        assert type(module) is kind and module.eps == 1e-5


def test_initial_values():
    torch.manual_seed(0)
    model = LocalVim('tiny-midcls')
    model.init_weights()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert (model.cls_token == 0).all()
    for layer in model.layers:
        assert layer.norm.eps == 1e-5
        bound = (384 * 20) ** -0.5
        assert 0.95 < layer.mixer.out_proj.weight.max() / bound <= 1
    assert model.stem.conv.weight.abs().max() <= (3 * 16 * 16) ** -0.5
    linear = model.layers[0].mixer.in_proj.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(directions=ROUTES[:2]), 'routes of 3 blocks, got 2 entries'),
        (dict(directions=['h', 'hh', 'v']), "block 1: unknown route 'hh'"),
        (dict(directions=['h', 'v', 'h h']), 'block 2 name a route twice'),
        (dict(directions='h'), "must be 'search' or a list"),
        (dict(norm='batch'), "norm must be 'rms' or 'layer', got 'batch'"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        LocalVim(MINI, **arguments)
    assert '\n' not in str(caught.value)
