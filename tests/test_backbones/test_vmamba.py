"""VMamba: fidelity, structure, and what it says to bad input."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmssm
from mmssm.backbones import VMamba
from mmssm.checkpoint import convert_upstream

MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))
SSD = dict(mixer='ssd', d_state=8, act='GELU', ssm_init='uniform')

# Counted on the original implementations, classifier (1000 classes) included;
# small-m2 and base-m2 were never counted there.
PARAMETERS = {
    'vanilla-tiny': 22_893_448,
    'vanilla-small': 44_417_416,
    'vanilla-base': 76_254_056,
    'tiny-s2l5': 30_705_832,
    'small-s2l15': 50_147_752,
    'base-s2l15': 88_557_800,
    'tiny-s1l8': 30_249_064,
    'small-s1l20': 49_012_840,
    'base-s1l20': 86_614_504,
    'tiny-m2': 25_340_296,
}


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameter_count_is_the_originals(arch):
    with torch.device('meta'):
        model = VMamba(arch)
    width = model.arch['embed_dims'] * 8
    assert count(model) + 1000 * (width + 1) == PARAMETERS[arch]


def test_every_arch_is_counted_or_unreleased():
    unreleased = {'small-m2', 'base-m2'}
    assert set(VMamba.arch_settings) == set(PARAMETERS) | unreleased
    for arch in unreleased:
        with torch.device('meta'):
            assert count(VMamba(arch)) > count(VMamba('tiny-m2'))


@pytest.mark.parametrize(
    'name, arch',
    [
        ('vmamba_vanilla_tiny_cls', 'vanilla-tiny'),
        ('vmamba_tiny_s2l5_cls', 'tiny-s2l5'),
        ('vmamba_tiny_s1l8_cls', 'tiny-s1l8'),
        ('vmamba_tiny_m2_cls', 'tiny-m2'),
    ],
)
def test_golden_classifier(golden, name, arch):
    case = golden(name)
    converted = convert_upstream({'model': case.state_dict()}, name)
    model = nn.Module()
    model.backbone = VMamba(arch)
    model.head = nn.Module()
    model.head.fc = nn.Linear(model.backbone.arch['embed_dims'] * 8, 1000)
    model.load_state_dict(converted['state_dict'], strict=True)
    with torch.no_grad():
        features = model.eval().backbone(case.input())[-1].mean((2, 3))
        assert case.error('logits', model.head.fc(features)) <= 2e-4


@pytest.mark.parametrize(
    'name, arch',
    [
        ('vmamba_vanilla_tiny_backbone', 'vanilla-tiny'),
        ('vmamba_tiny_s1l8_backbone', 'tiny-s1l8'),
    ],
)
def test_golden_feature_maps(golden, name, arch):
    """On a non-square map with odd sizes in the later stages."""
    case = golden(name)
    converted = convert_upstream({'model': case.state_dict()}, name)
    model = nn.Module()
    model.backbone = VMamba(arch, out_indices=(0, 1, 2, 3))
    model.load_state_dict(converted['state_dict'], strict=True)
    with torch.no_grad():
        for i, out in enumerate(model.eval().backbone(case.input())):
            assert case.error(f'stage{i}', out) <= 2e-4


@pytest.mark.parametrize(
    'fields',
    [
        dict(),
        dict(stem='patch', downsample='merging', gate=True, mlp_ratio=0.0),
        SSD,
    ],
)
@pytest.mark.parametrize('size', [(64, 64), (33, 70), (4, 4), (4, 100)])
def test_any_size_learns(fields, size):
    """Any H x W, down to one patch, and every parameter gets a gradient."""
    model = VMamba({**MINI, **fields}, out_indices=(0, 1, 2, 3))
    x = torch.randn(2, 3, *size)
    outs = model(x)
    half_up = fields.get('stem') != 'patch'
    height, width = ((s + 3) // 4 if half_up else s // 4 for s in size)
    for i, out in enumerate(outs):
        assert out.shape == (2, 16 * 2**i, height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    sum((o * torch.randn_like(o)).sum() for o in outs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_batch_items_do_not_mix():
    model = VMamba(MINI).eval()
    x = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        whole = model(x)[0]
        single = torch.cat([model(x[i : i + 1])[0] for i in range(3)])
        assert model(x[:0])[0].shape == (0, 128, 2, 2)
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)


def test_drop_path_grows_linearly():
    model = VMamba(
        dict(depths=(1, 2, 1)), drop_path_rate=0.3, out_indices=(2,)
    )
    rates = [
        block.drop_path.drop_prob
        for stage in model.stages
        for block in stage.blocks
    ]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert VMamba.parse_arch('small')[1]['drop_path_rate'] == 0.3


def test_initial_values():
    """S4D-Real rates, unit skips, steps of softplus in [1e-3, 1e-1]."""
    model = VMamba('vanilla-tiny')
    model.init_weights()
    mixer = model.stages[0].blocks[0].mixer
    torch.testing.assert_close(
        mixer.A_logs[5].exp(), torch.arange(1.0, 17.0), rtol=1e-5, atol=0
    )
    assert (mixer.Ds == 1).all()
    steps = nn.functional.softplus(mixer.dt_projs_bias)
    assert 1e-3 * 0.99 <= steps.min() and steps.max() <= 0.101
    assert mixer.dt_projs_weight.abs().max() <= 6**-0.5
    linear = mixer.in_proj.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.1)


def test_frozen_stages():
    model = VMamba(MINI, out_indices=(0, 1), frozen_stages=0).train()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    prefixes = {
        n.split('.')[0] + n.split('.')[1] * ('stages' in n) for n in frozen
    }
    assert prefixes == {'stem', 'stages0', 'norm0'}
    assert not model.stages[0].training and model.stages[1].training


def test_norm_eval_keeps_batch_norm_still():
    model = VMamba(MINI, norm_eval=True)
    model.stages[0].extra = nn.BatchNorm2d(4)
    assert not model.train().stages[0].extra.training
    assert model.stages[0].blocks[0].training


def test_with_cp_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain = VMamba(MINI, drop_path_rate=0.0)
    saving = VMamba(MINI, drop_path_rate=0.0, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 32, 32)
    weight = torch.randn(1, 128, 1, 1)
    grads = []
    for model in (plain, saving):
        (model(x)[0] * weight).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    'fields', [dict(), dict(gate=True, ssm_ratio=2.0), SSD]
)
@pytest.mark.parametrize('autocast', [False, True])
def test_inference_equals_training_forward(monkeypatch, fields, autocast):
    """Without gradients large maps are worked on in slices."""
    monkeypatch.setattr('mmssm.layers.slices.SLICE_BYTES', 2**12)
    torch.manual_seed(0)
    model = VMamba({**MINI, **fields}, out_indices=(0, 1, 2, 3)).eval()
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


@pytest.mark.parametrize('fields', [dict(), SSD])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_and_16_bit_weights(dtype, fields):
    model = VMamba({**MINI, **fields}).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = model(x)[0]
        with torch.autocast('cpu', dtype=dtype):
            mixed = model(x)[0]
        low = model.to(dtype)(x.to(dtype))[0]
    for got in (mixed, low):
        torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('fields', [dict(), SSD])
def test_compile_and_export_give_the_eager_result(fields):
    torch.manual_seed(0)
    arch = dict(embed_dims=16, depths=(1,), **fields)
    model = VMamba(arch, out_indices=(0,)).eval()
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        want = model(x)
        exported = torch.export.export(model, (x,)).module()(x)
        compiled = torch.compile(model, fullgraph=True)(x)
    for got in (exported, compiled):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_compiled_gradients():
    torch.manual_seed(0)
    arch = dict(embed_dims=16, depths=(1, 1))
    model = VMamba(arch, drop_path_rate=0.0, out_indices=(1,))
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.randn(1, 3, 32, 32)
    weight = torch.randn(1, 32, 4, 4)
    grads = []
    for f in (model, compiled):
        model.zero_grad()
        (f(x)[0] * weight).sum().backward()
        grads.append(
            [p.grad.clone() for p in model.parameters() if p.grad is not None]
        )
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
@pytest.mark.parametrize('type_', ['VMamba', 'mmssm.VMamba', mmssm.VMamba])
def test_registered_for_every_scope(scope, type_):
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(dict(type=type_, arch=MINI))
    assert isinstance(model, VMamba)


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(arch='huge'), ValueError, "no arch 'huge'; known: tiny-s1l8"),
        (
            dict(arch=dict(depth=(1,))),
            ValueError,
            "unknown arch field 'depth'",
        ),
        (dict(arch=dict(stem='conf')), ValueError, "'stem' must be one of"),
        (dict(drop_path=0.1), TypeError, "did you mean 'drop_path_rate'"),
        (dict(out_indices=(0, 4)), ValueError, 'stages 0 to 3, each'),
        (dict(out_indices=()), ValueError, 'stages 0 to 3, '),
        (dict(out_indices=3), ValueError, 'stages 0 to 3, each at most once'),
        (dict(out_indices=(3, 3)), ValueError, 'each at most once, got'),
        (dict(arch=None), ValueError, 'a name or a dict, got None'),
        (dict(arch=dict(routes='x')), ValueError, "unknown route 'x'"),
        (dict(frozen_stages=4), ValueError, r'-1 \(none\) to 3, got 4'),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        VMamba(**{'arch': MINI, **arguments})
    assert '\n' not in str(caught.value)


def test_too_small_an_image_is_refused():
    for stem in ('conv', 'patch'):
        with pytest.raises(ValueError, match='smaller than one patch'):
            VMamba(dict(MINI, stem=stem))(torch.zeros(1, 3, 3, 64))
    with pytest.raises(ValueError, match=r'images must be \(B, channels'):
        VMamba(MINI)(torch.zeros(3, 64, 64))


def test_subclass_may_pass_arguments_on():
    class Extended(VMamba):
        def __init__(self, extra=1, **kwargs):
            super().__init__(**kwargs)

    assert Extended(extra=2, arch=MINI).arch_name is None


def test_routes_are_a_choice():
    model = VMamba(dict(MINI, routes='h v_flip'))
    assert model.stages[0].blocks[0].mixer.x_proj_weight.shape[0] == 2
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 128, 1, 1)
