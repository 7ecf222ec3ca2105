"""FractalMamba's own: its trees, its routes, GrootV's head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmssm.backbones import FractalMamba
from mmssm.layers import SS2D, TreeSSM
from mmssm.models import ConvClsHead

MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))


def mixers(model):
    return [block.mixer for stage in model.stages for block in stage.blocks]


def test_head_is_groot_vs():
    """Between the backbone and the linear layer, as golden cases have it."""
    torch.manual_seed(0)
    head = ConvClsHead(10, 16, 24).eval()
    parameters = sum(p.numel() for p in head.parameters())
    assert parameters == 24 * 16 + 2 * 24 + 10 * 24 + 10
    maps = torch.randn(2, 16, 3, 5)
    with torch.no_grad():
        head.bn.running_mean.normal_()
        head.bn.running_var.uniform_(0.5, 2)
        mixed = torch.einsum(
            'oi,bihw->bohw', head.conv.weight[..., 0, 0], maps
        )
        want = head.fc(F.gelu(head.bn(mixed)).mean((2, 3)))
        torch.testing.assert_close(head((torch.zeros(1), maps)), want)


def test_scans_along_trees_or_routes():
    tree = FractalMamba(MINI)
    for mixer in mixers(tree):
        assert isinstance(mixer, TreeSSM)
        assert (mixer.curve, mixer.pathways) == ('hilbert', 0.1)
    raster = FractalMamba(MINI, order='raster', pathways=0.25)
    for mixer in mixers(raster):
        assert (mixer.curve, mixer.pathways) == ('h', 0.25)


def test_routes_are_shifted_in_every_second_block():
    plain = ('hilbert', 'hilbert_t', 'hilbert_flip', 'hilbert_t_flip')
    shifted = (
        'hilbert_shift',
        'hilbert_t_shift',
        'hilbert_shift_flip',
        'hilbert_t_shift_flip',
    )
    found = mixers(FractalMamba(dict(MINI, depths=(2, 1, 1, 1)), 'routes'))
    assert all(isinstance(mixer, SS2D) for mixer in found)
    assert [mixer.routes for mixer in found] == [
        plain,
        shifted,
        plain,
        shifted,
        plain,
    ]


def test_rows_and_columns_as_routes():
    for mixer in mixers(FractalMamba(MINI, 'routes', order='raster')):
        assert mixer.routes == ('h', 'v', 'h_flip', 'v_flip')


@pytest.mark.parametrize('changes', [dict(pathways=0.0), dict(order='raster')])
def test_order_and_pathways_matter(changes):
    torch.manual_seed(0)
    model = FractalMamba(MINI).eval()
    other = FractalMamba(MINI, **changes).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert not torch.allclose(model(x)[0], other(x)[0])


def test_norms_feed_the_next_stage():
    """What a stage returns is what the next one starts from."""
    torch.manual_seed(0)
    model = FractalMamba(MINI, out_indices=(0, 1)).eval()
    seen = []
    model.stages[1].downsample.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    with torch.no_grad():
        first, _ = model(torch.randn(1, 3, 64, 64))
    assert torch.equal(seen[0].permute(0, 3, 1, 2), first)


def test_epsilons_are_the_originals():
    model = FractalMamba(MINI)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == (1e-5 if '.mixer.' in name else 1e-6), name


def test_frozen_stages_freeze_their_norms():
    model = FractalMamba(MINI, frozen_stages=1)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {name.split('.')[0] for name in frozen} == {
        'stem',
        'stages',
        'norm0',
        'norm1',
    }


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda w: w.pop('norm1.weight'), 'missing keys: .*norm1.weight'),
        (
            lambda w: w.update({'norm7.weight': torch.ones(16)}),
            'unknown keys: .*norm7.weight',
        ),
    ],
)
def test_norms_that_feed_stages_are_no_outputs_of_a_file(
    tmp_path, change, message
):
    weights = FractalMamba(MINI).state_dict()
    path = tmp_path / 'mini.pth'
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    torch.save(weights, path)
    model = FractalMamba(MINI, init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.stem.conv1.weight, weights['stem.conv1.weight'])
    change(weights)
    torch.save(weights, path)
    with pytest.raises(RuntimeError, match=message):
        model.init_weights()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(scan='path'), "scan must be 'tree' or 'routes', got 'path'"),
        (dict(order='v'), "order must be 'hilbert' or 'raster', got 'v'"),
        (dict(pathways=2.0), 'pathways must be a share of tokens, 0 to 1'),
        (dict(pathways='0.1'), "share of tokens, 0 to 1, got '0.1'"),
        (dict(scan='routes', pathways=0.1), "are a tree's, but scan is"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FractalMamba(MINI, **arguments)
