"""Tools that change or watch a model's layers reach every one of them."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from small_models import BACKBONES
from torch import distributed, nn
from torch.ao.quantization import quantize_dynamic
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parameters_to_vector, parametrizations, prune

import mmssm  # noqa: F401
from mmssm.backbones.hierarchical import Stage
from mmssm.layers import MambaBlock

ARCH = dict(embed_dims=8, depths=(1, 1, 2, 1))
KINDS = {
    **{k: (k, v) for k, v in BACKBONES.items() if '.' not in k},
    'vanilla': (
        'VMamba',
        dict(arch=dict(ARCH, stem='patch', downsample='merging', gate=True)),
    ),
    'm2': (
        'VMamba',
        dict(
            arch=dict(
                ARCH,
                embed_dims=16,
                d_state=4,
                mixer='ssd',
                act='GELU',
                ssm_init='uniform',
            )
        ),
    ),
    'search': ('LocalVMamba', dict(arch=ARCH, directions='search')),
    'routes': ('FractalMamba', dict(arch=ARCH, scan='routes')),
    'class-token': (
        'LocalVim',
        dict(
            arch=dict(
                BACKBONES['LocalVim']['arch'], class_token=True, rope=False
            ),
            img_size=64,
        ),
    ),
    'layer-norm': ('LocalVim', dict(BACKBONES['LocalVim'], norm='layer')),
}
PLAIN = ('Vim', 'LocalVim', 'class-token', 'layer-norm')


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def build(kind, **options):
    """A small backbone without randomness, far from its initial weights."""
    name, arguments = KINDS[kind]
    torch.manual_seed(0)
    options = dict(arguments, drop_path_rate=0.0, **options)
    model = MODELS.build(dict(type=name, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def images(*size):
    torch.manual_seed(1)
    return torch.randn(2, 3, *(size or (64, 64)))


def replace_linear(model, make):
    """Put ``make(layer)`` in place of each linear layer; gives the new."""
    made = {}
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            parent, _, child = name.rpartition('.')
            made[name] = make(layer)
            setattr(model.get_submodule(parent), child, made[name])
    return made


class LoRA(nn.Module):
    """A frozen layer plus a product of rank 2, which starts at zero."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_low_rank_adapters(kind):
    model, x = build(kind), images()
    want = model(x)[0].detach()
    adapters = replace_linear(model, LoRA)
    (out,) = model(x)
    assert torch.equal(out, want)
    (out * torch.randn_like(out)).sum().backward()
    assert len(adapters) >= 3
    for name, adapter in adapters.items():
        assert adapter.up.weight.grad.abs().max() > 0, name
    with torch.no_grad():
        for name, adapter in adapters.items():
            adapter.up.weight.copy_(adapter.up.weight.grad.sign())
            assert (model(x)[0] - want).abs().max() > 0, name
            adapter.up.weight.zero_()


def test_low_rank_adapters_of_peft(kind):
    peft = pytest.importorskip('peft')
    model, x = build(kind), images()
    want = model(x)[0].detach()
    names = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    config = peft.LoraConfig(r=2, target_modules=names)
    adapted = peft.get_peft_model(model, config)
    (out,) = adapted(x)
    assert torch.equal(out, want)
    (out * torch.randn_like(out)).sum().backward()
    grads = {
        name: parameter.grad
        for name, parameter in adapted.named_parameters()
        if 'lora_B' in name
    }
    assert len(grads) == len(names)
    for name, grad in grads.items():
        assert grad.abs().max() > 0, name


@pytest.mark.filterwarnings('ignore:torch.ao.quantization is deprecated')
def test_dynamic_quantization(kind):
    model, x = build(kind), images()
    want = model(x)[0].detach()
    quantized = quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    assert not any(type(m) is nn.Linear for m in quantized.modules())
    got = quantized(x)[0].detach()
    assert not torch.equal(got, want)
    similarity = torch.cosine_similarity(got.flatten(), want.flatten(), dim=0)
    assert similarity > 0.99


def test_weight_norm(kind):
    model, x = build(kind), images()
    want = model(x)[0].detach()
    layers = replace_linear(model, parametrizations.weight_norm)
    (out,) = model(x)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    (out * torch.randn_like(out)).sum().backward()
    for name, layer in layers.items():
        scale = layer.parametrizations.weight.original0
        assert scale.grad.abs().max() > 0, name


def test_pruned_layers_learn(kind):
    model = build(kind)
    layers = [
        m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))
    ]
    for layer in layers:
        prune.l1_unstructured(layer, 'weight', 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    before = [layer.weight_orig.clone() for layer in layers]
    for _ in range(2):
        (out,) = model(images())
        (out * torch.randn_like(out)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for layer, old in zip(layers, before):
        mask = layer.weight_mask.bool()
        assert not torch.equal(layer.weight_orig[mask], old[mask])
        assert torch.equal(layer.weight_orig[~mask], old[~mask])


@pytest.mark.parametrize('grad', [True, False])
def test_hooks_see_every_module_and_whole_maps(monkeypatch, kind, grad):
    """Also where inference works on slices of maps."""
    monkeypatch.setattr('mmssm.layers.slices.SLICE_BYTES', 2**12)
    model = build(kind)
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList):  # which nobody can call
            module.register_forward_hook(
                lambda _, args, out, n=name: found.setdefault(n, []).append(
                    out.shape if isinstance(out, torch.Tensor) else None
                )
            )
    with torch.set_grad_enabled(grad):
        model(images(64, 64))
    called = {
        name
        for name, module in model.named_modules()
        if not isinstance(module, nn.ModuleList)
    }
    assert set(found) == called
    whole = [s for n, shapes in found.items() if 'blocks' in n for s in shapes]
    assert all(s is None or len(s) > 2 for s in whole)


@pytest.mark.parametrize('family', sorted(set(KINDS) - set(PLAIN)))
def test_stages_are_called(family):
    model = build(family, out_indices=(0, 1, 2, 3))
    maps = []
    for stage in model.stages:
        stage.register_forward_hook(lambda *args: maps.append(args[2]))
    outs = model(images())
    for i, (own, out) in enumerate(zip(maps, outs, strict=True)):
        norm = getattr(model, f'norm{i}')
        torch.testing.assert_close(norm(own), out)


def test_each_output_has_a_module(kind):
    """``norm{i}`` gives the map, or ``to_map`` what a vector is made of."""
    options = {}
    if kind in PLAIN:
        options = dict(out_type='featmap')
    model = build(kind, out_indices=(0, 2), **options)
    found = []
    for i in (0, 2):
        norm = getattr(model, f'norm{i}')
        norm.register_forward_hook(lambda *args: found.append(args[2]))
    outs = model(images(64, 96))
    for own, out in zip(found, outs, strict=True):
        assert own.shape == out.shape and torch.equal(own, out)


@pytest.mark.parametrize('family', sorted(set(KINDS) - set(PLAIN)))
def test_the_last_norm_gives_the_last_map(family):
    """Grad-CAM's tool takes it unless it is told another layer."""
    model = build(family, out_indices=(0, 3))
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert norms[-1] is model.norm3


@pytest.mark.parametrize('family', PLAIN)
def test_the_map_that_a_vector_is_made_of(family):
    model = build(family)
    maps = []
    model.to_map.register_forward_hook(lambda *args: maps.append(args[2]))
    (out,) = model(images(64, 96))
    (one,) = maps
    assert one.shape == (2, 16, 4, 6)
    if model.out_type == 'avg_featmap':
        torch.testing.assert_close(out, one.mean((2, 3)))
    (grad,) = torch.autograd.grad(out[:, 0].sum(), one)
    assert (grad.abs().amax(1) > 0).all()


def test_parameters_are_contiguous(kind):
    model = build(kind)
    for name, parameter in model.named_parameters():
        assert parameter.is_contiguous(), name
    vector = parameters_to_vector(model.parameters())
    assert vector.numel() == sum(p.numel() for p in model.parameters())


@pytest.fixture
def process_group():
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_fully_sharded_layers_and_stages_learn(process_group, kind):
    model, x = build(kind), images()
    want = model(x)[0].detach()
    mesh = init_device_mesh('cpu', (1,))
    for module in reversed(list(model.modules())):
        if isinstance(module, (nn.Linear, nn.Conv2d, Stage, MambaBlock)):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    (out,) = model(x)
    assert torch.equal(out, want)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.filterwarnings('ignore:There is a performance drop')
@pytest.mark.parametrize('family', ['VMamba', 'SpatialMamba', 'Vim'])
def test_per_sample_gradients(family):
    model, x = build(family), images()
    names, values = zip(*model.named_parameters())

    def loss(values, image):
        state = dict(zip(names, values))
        (out,) = torch.func.functional_call(model, state, (image[None],))
        return out.square().sum()

    got = torch.func.vmap(torch.func.grad(loss), (None, 0))(values, x)
    for i, image in enumerate(x):
        want = torch.autograd.grad(loss(values, image), values)
        for name, a, b in zip(names, got, want):
            error = (a[i] - b).norm() / b.norm().clamp_min(1e-3)
            assert error < 1e-3, name
