"""Spatial-Mamba's own; most tests are named after a fault of the original.

It merges a block's three filters into one of 11 x 11 at the first forward
pass in eval mode, keeps that for good, and has no backward for it.
"""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmssm.backbones import SpatialMamba

MINI = dict(embed_dims=16, depths=(1, 1))
IMAGES = torch.randn(2, 3, 40, 52, generator=torch.Generator().manual_seed(0))


def mini(seed=0, **arguments):
    """A small model with weights far from their initial ones, in eval mode.

    Filters that are all ones, as at the start, would hide mistakes.
    """
    torch.manual_seed(seed)
    model = SpatialMamba(MINI, out_indices=(0, 1), **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.train()(torch.randn(4, 3, 48, 48))  # running statistics
    return model.eval()


def outputs(model, x=IMAGES):
    with torch.inference_mode():
        return model(x)


def outputs_of_fresh(state_dict, x=IMAGES):
    """Of a model that has never run before it gets its weights."""
    model = SpatialMamba(MINI, out_indices=(0, 1)).to(x.dtype)
    model.load_state_dict(state_dict)
    return outputs(model.eval(), x)


def assert_equal(got, want):
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def assert_differ(got, want):
    for a, b in zip(got, want):
        assert (a - b).abs().max() > 1e-2


def test_evaluation_follows_the_training():
    """Merged weights of the first evaluation must not be used again."""
    model = mini()
    before = outputs(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outs = model.train()(IMAGES)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    optimizer.step()
    after = outputs(model.eval())
    assert_differ(after, before)
    assert_equal(after, outputs_of_fresh(model.state_dict()))


@pytest.mark.parametrize('name', ['fusion_weight', 'fusion_alpha'])
def test_evaluation_follows_the_fusion(name):
    model = mini()
    before = outputs(model)
    with torch.no_grad():
        getattr(model.stages[0].blocks[0].mixer, name).mul_(-1.5)
    after = outputs(model)
    assert_differ(after, before)
    assert_equal(after, outputs_of_fresh(model.state_dict()))


def test_weights_loaded_after_an_evaluation_count():
    model, other = mini(0), mini(1)
    before = outputs(model)
    want = outputs(other)
    assert_differ(want, before)
    model.load_state_dict(other.state_dict())
    assert_equal(outputs(model), want)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_dtype_changed_after_an_evaluation_counts(dtype):
    model = mini()
    want = outputs(model)
    model.to(dtype)
    got = outputs(model, IMAGES.to(dtype))
    assert_equal(got, outputs_of_fresh(model.state_dict(), IMAGES.to(dtype)))
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    for a, b in zip(got, want):
        error = (a.float() - b).abs().max() / b.abs().max()
        assert a.dtype == dtype and error < tolerance


def test_float64_is_computed_in_float64():
    """To more digits than float32 has, in the fusion too."""
    model = mini().double()
    x = IMAGES.double()
    want = outputs(model, x)
    with torch.no_grad():
        model.stages[1].blocks[0].mixer.fusion_weight.mul_(1 + 1e-10)
    differences = (outputs(model, x)[1] - want[1]).abs().max()
    assert 1e-13 < differences < 1e-8


def test_gradients_in_eval_mode_are_those_of_training():
    """For heat maps, and for backbones that are kept in eval mode."""
    model = mini(drop_path_rate=0.0, norm_eval=True)
    grads = []
    for training in (False, True):
        model.train(training).zero_grad()
        x = IMAGES.clone().requires_grad_()
        torch.manual_seed(0)
        outs = model(x)
        sum((out * torch.randn_like(out)).sum() for out in outs).backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
        grads[-1]['the image'] = x.grad
    for name, want in grads[1].items():
        got = grads[0][name]
        assert got is not None and want.abs().max() > 0, name
        torch.testing.assert_close(got, want, msg=f'gradient of {name}')


def test_evaluation_leaves_nothing_behind():
    """Neither in the state dict nor anywhere else in the model."""
    model = mini()
    model = pickle.loads(pickle.dumps(model))
    keys, size = list(model.state_dict()), len(pickle.dumps(model))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            model(IMAGES)
    assert list(model.state_dict()) == keys
    assert len(pickle.dumps(model)) == size


def test_moving_average_of_a_model_that_has_run():
    model = mini()
    model(IMAGES)  # records a graph, which cannot be copied
    copied = copy.deepcopy(model)
    average = ExponentialMovingAverage(model, momentum=0.5)
    before = outputs(average)
    assert_equal(before, outputs(copied))
    average.update_parameters(mini(1))
    after = outputs(average)
    assert_differ(after, before)
    assert_equal(after, outputs_of_fresh(average.module.state_dict()))
    assert_equal(outputs(copied), before)


def test_norm_eval_keeps_batch_norms_still():
    for norm_eval in (True, False):
        model = SpatialMamba(MINI, out_indices=(1,), norm_eval=norm_eval)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 5 + 1
        means = [norm.running_mean.clone() for norm in norms]
        model.train()(IMAGES)
        assert model.stages[0].blocks[0].training
        for norm, mean in zip(norms, means):
            assert torch.equal(norm.running_mean, mean) is norm_eval


def test_initial_values():
    """Plain sums of neighbors, one slow state, steps in [1e-3, 1e-1]."""
    model = SpatialMamba('tiny')
    model.init_weights()
    mixer = model.stages[0].blocks[0].mixer
    assert (mixer.fusion_weight == 1).all()
    assert (mixer.fusion_alpha == 1).all()
    assert (mixer.A_logs == 0).all() and mixer.A_logs.shape == (128, 1)
    assert (mixer.Ds == 1).all()
    steps = nn.functional.softplus(mixer.dt_projs_bias)
    assert 1e-3 * 0.99 <= steps.min() and steps.max() <= 0.101
    assert mixer.dt_projs_weight.abs().max() <= 4**-0.5
    linear = mixer.in_proj.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.1)


def test_convolutions_start_as_pytorch_leaves_them():
    """Uniform in +-1 / sqrt(fan-in), as in the original."""
    model = SpatialMamba('tiny')
    model.init_weights()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 5 + 3 * 3 + 18 * 3  # stem, downsampling, blocks
    for conv in convs:
        fan_in = conv.weight[0].numel()
        want = (3 * fan_in) ** -0.5
        assert conv.weight.std().item() == pytest.approx(want, rel=0.15)
        assert conv.bias is None or conv.bias.any()


def test_names_that_files_rely_on():
    names = SpatialMamba(MINI, out_indices=(1,)).state_dict()
    block = 'stages.0.blocks.0.'
    parts = {k.removeprefix(block) for k in names if k.startswith(block)}
    both = ('weight', 'bias')
    pairs = ('cpe1', 'cpe2', 'norm1', 'norm2', 'mixer.conv2d')
    pairs += ('mixer.out_norm', 'ffn.layers.0.0', 'ffn.layers.1')
    assert parts == {f'{name}.{end}' for name in pairs for end in both} | {
        f'mixer.{name}'
        for name in (
            'in_proj.weight',
            'gate_proj.weight',
            'x_proj_weight',
            'dt_projs_weight',
            'dt_projs_bias',
            'A_logs',
            'Ds',
            'fusion_weight',
            'fusion_alpha',
            'out_proj.weight',
        )
    }


def test_unknown_arch_is_named():
    with pytest.raises(ValueError, match="no arch 'huge'; known: tiny, small"):
        SpatialMamba('huge')
