"""Models with packed weights compute what they computed before."""

import copy
import io

import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN
from small_models import BACKBONES
from torch import nn
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import mmssm
from mmssm.layers.map_conv import MapConv2d
from mmssm.layers.packed import (
    PackedFFN,
    PackedLinear,
    PackedMapConv2d,
    optimize_for_inference,
)
from mmssm.utils import UserError

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='needs oneDNN'
)
DTYPES = [torch.float32]
if hasattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported') and (
    torch.ops.mkldnn._is_mkldnn_bf16_supported()
):
    DTYPES.append(torch.bfloat16)
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
FAMILIES = {k: v for k, v in BACKBONES.items() if '.' not in k}


class Net(nn.Module):
    """Layers of all kinds; the second FFN cannot be fused."""

    def __init__(self):
        super().__init__()
        self.conv = MapConv2d(3, 8, 2, stride=2)
        self.ffn = FFN(8, 16, act_cfg=dict(type='GELU'))
        self.relu = FFN(8, 16, act_cfg=dict(type='ReLU'))
        self.linear = nn.Linear(8, 5, bias=False)

    def forward(self, x):
        x = self.conv(x.permute(0, 2, 3, 1))
        return self.linear(self.relu(self.ffn(x)))


def net():
    torch.manual_seed(0)
    return Net().eval()


def images(*size):
    torch.manual_seed(1)
    return torch.randn(2, 3, *size)


@torch.inference_mode()
def run(model, x):
    y = model(x)
    return y if isinstance(y, torch.Tensor) else y[-1]


def products(model, x):
    """How many products with packed weights a forward pass has."""
    with torch.inference_mode(), profile() as events:
        model(x)
    names = [event.name for event in events.function_events]
    return names.count('mkldnn::_linear_pointwise')


def assert_near(have, want, dtype=torch.float32):
    assert have.dtype == want.dtype
    error = (have - want).abs().max() / want.abs().max()
    assert error <= TOLERANCES[dtype]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('family', FAMILIES)
def test_every_family(family, dtype):
    torch.manual_seed(0)
    model = getattr(mmssm, family)(**FAMILIES[family]).eval()
    sizes = [images(64, 64), images(70, 45)]
    want = [run(model, x) for x in sizes]
    keys = list(model.state_dict())
    assert mmssm.optimize_for_inference(model, dtype=dtype) is model
    for x, y in zip(sizes, want):
        assert_near(run(model, x), y, dtype)
    assert list(model.state_dict()) == keys
    assert products(model, sizes[0]) > 4


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_every_kind_of_layer(dtype):
    model = net()
    x = images(4, 2)  # so few tokens that the convolution is a product
    want = run(model, x)
    optimize_for_inference(model, x, dtype)
    assert type(model.conv) is PackedMapConv2d
    assert type(model.ffn) is PackedFFN
    assert type(model.relu) is FFN
    assert type(model.linear) is PackedLinear
    assert_near(run(model, x), want, dtype)
    assert products(model, x) == 6


@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_gelus(approximate):
    model = net()
    model.ffn.layers[0][1].approximate = approximate
    x = 3 * images(8, 8)
    want = run(model, x)
    assert_near(run(optimize_for_inference(model), x), want)


@pytest.mark.parametrize(
    'options',
    [
        dict(add_identity=False),
        dict(layer_scale_init_value=0.5),
        dict(num_fcs=3),
    ],
    ids=str,
)
def test_other_ffns(options):
    torch.manual_seed(0)
    model = FFN(8, 16, act_cfg=dict(type='GELU'), **options).eval()
    x = torch.randn(5, 8)
    want = run(model, x)
    assert_near(run(optimize_for_inference(model), x), want)


def test_training_makes_it_plain():
    model, plain = optimize_for_inference(net()), net()
    model.train()
    plain.train()
    assert [type(m) for m in model.modules()] == [
        type(m) for m in plain.modules()
    ]
    x = images(8, 8)
    for m in (model, plain):
        m(x).square().mean().backward()
    for have, want in zip(model.parameters(), plain.parameters()):
        assert torch.equal(have.grad, want.grad)
    model.eval()
    assert products(model, x) == 0
    assert torch.equal(run(model, x), run(plain.eval(), x))


def test_gradients_in_eval_mode():
    model, plain = optimize_for_inference(net()), net()
    x = images(8, 8)
    for m in (model, plain):
        m(x).square().mean().backward()
    for have, want in zip(model.parameters(), plain.parameters()):
        assert torch.equal(have.grad, want.grad)


def test_new_weights_are_packed():
    model, other = optimize_for_inference(net()), net()
    x = images(8, 8)
    run(model, x)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    model.load_state_dict(other.state_dict())
    assert_near(run(model, x), run(other, x))
    model.linear.weight = nn.Parameter(torch.ones(5, 8))
    other.linear.weight = nn.Parameter(torch.ones(5, 8))
    assert_near(run(model, x), run(other, x))
    model.linear.weight.data = torch.full((5, 8), 2.0)
    other.linear.weight.data = torch.full((5, 8), 2.0)
    assert_near(run(model, x), run(other, x))


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        model = net()
    x = images(8, 8)
    want = run(model, x)
    assert_near(run(optimize_for_inference(model), x), want)


def test_other_weights_at_the_same_address():
    model, x = optimize_for_inference(net()), images(8, 8)
    for factor in (1.0, 2.0, 3.0):
        weights = {k: factor * v for k, v in model.named_parameters()}
        plain = net()
        plain.load_state_dict({k: v.detach() for k, v in weights.items()})
        with torch.no_grad():
            have = torch.func.functional_call(model, weights, (x,))
        assert_near(have, run(plain, x))


def test_active_dropouts():
    model = net()
    model.ffn.layers[0][2].p = 0.5
    optimize_for_inference(model)
    x = images(8, 8)
    assert torch.equal(run(model, x), run(model, x))
    model.ffn.layers[0][2].train()
    assert not torch.equal(run(model, x), run(model, x))


def test_another_activation():
    model, plain = optimize_for_inference(net()), net()
    for m in (model, plain):
        m.ffn.layers[0][1] = nn.ReLU()
    x = images(8, 8)
    assert_near(run(model, x), run(plain, x))


def test_an_identity_of_another_shape():
    ffn = net().ffn
    x, identity = torch.randn(2, 3, 8), torch.randn(8)
    with torch.no_grad():
        want = ffn(x, identity)
        assert_near(optimize_for_inference(ffn)(x, identity), want)


def test_tools_see_pytorchs_own_operators():
    model, x = optimize_for_inference(net()), images(8, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    with torch.no_grad(), FlopCounterMode(display=False) as plain:
        net()(x)
    assert counter.get_total_flops() == plain.get_total_flops() > 0
    weights = {k: v[None] for k, v in model.named_parameters()}
    with torch.no_grad():
        each = torch.func.vmap(
            lambda w: torch.func.functional_call(model, w, (x,))
        )(weights)
    assert_near(each[0], run(net(), x))


def test_a_parametrization_made_afterwards():
    model = optimize_for_inference(net())
    x = images(8, 8)
    want = run(model, x)
    nn.utils.parametrizations.weight_norm(model.linear)
    assert_near(run(model, x), want)
    model.train()
    assert_near(run(model.eval(), x), want)


def test_copies_and_files():
    model = optimize_for_inference(net())
    x = images(4, 2)
    want = run(model, x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), loaded):
        assert torch.equal(run(other, x), want)
        assert products(other, x) == 6
        assert other.linear.packed is not model.linear.packed


def test_hooks_and_adapters_in_an_ffn():
    model = optimize_for_inference(net())
    x = images(8, 8)
    want = run(model, x)
    seen = []
    handle = model.ffn.layers[0][1].register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape)
    )
    assert_near(run(model, x), want)
    assert seen == [(2, 4, 4, 16)]
    handle.remove()
    model.ffn.layers[1] = nn.Sequential(model.ffn.layers[1], nn.Dropout(0.0))
    assert_near(run(model, x), want)


def test_where_packed_weights_do_not_serve():
    model, plain = optimize_for_inference(net()), net()
    x = images(8, 8)
    with torch.autocast('cpu', torch.bfloat16):
        assert products(model, x) == 0
        assert torch.equal(run(model, x), run(plain, x))
    assert run(model, x[:0]).shape == (0, 4, 4, 5)
    assert torch.equal(
        run(model.double(), x.double()), run(plain.double(), x.double())
    )


def test_prepared_twice():
    model = optimize_for_inference(net(), dtype=DTYPES[-1])
    optimize_for_inference(model)
    assert model.linear.packed.dtype == torch.float32
    assert type(model.train().linear) is nn.Linear


def test_traces_of_a_prepared_model_are_those_of_a_plain_one():
    x = images(8, 8)
    model = optimize_for_inference(net())
    with torch.no_grad():
        program = torch.export.export(model, (x,))
    assert 'mkldnn' not in str(program.graph)


def test_refusals(monkeypatch):
    model = net()
    with pytest.raises(UserError, match='float32 or bfloat16, got .*float16'):
        optimize_for_inference(model, dtype=torch.float16)
    with pytest.raises(UserError, match=r'call model\.eval\(\) first'):
        optimize_for_inference(model.train())
    with pytest.raises(UserError, match=r'conv\.weight is torch.float64 on'):
        optimize_for_inference(net().double())
    with pytest.raises(UserError, match='ReLU has no linear layer'):
        optimize_for_inference(nn.ReLU().eval())
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    with pytest.raises(UserError, match='no oneDNN'):
        optimize_for_inference(net())


def test_a_sample_of_a_model_with_nested_outputs():
    class Nested(Net):
        def forward(self, x):
            y = super().forward(x)
            return dict(maps=[[y], (2 * y, 0 * y)], size=x.shape[-1])

    optimize_for_inference(Nested().eval(), images(8, 8))


def test_a_sample_shows_a_deviation(monkeypatch):
    model = net()
    monkeypatch.setattr(
        PackedFFN, 'forward', lambda self, x: 1.001 * FFN.forward(self, x)
    )
    with pytest.raises(RuntimeError, match='deviates by .* on the sample'):
        optimize_for_inference(model, images(8, 8))
