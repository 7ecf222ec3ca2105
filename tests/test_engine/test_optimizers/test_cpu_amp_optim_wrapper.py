import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from torch import nn

from mmssm import VMamba
from mmssm.engine import CPUAmpOptimWrapper
from mmssm.engine.optimizers.cpu_amp_optim_wrapper import in_cpu_amp
from mmssm.utils import UserError


@pytest.fixture
def build():
    def build(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return CPUAmpOptimWrapper(optimizer)

    return build


def test_a_step(build):
    """Matrix products in bfloat16; weights and gradients in float32."""
    torch.manual_seed(0)
    model = VMamba(dict(embed_dims=16, depths=(1, 1, 1, 1)))
    products = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(
                lambda module, args, out: products.append(out.dtype)
            )
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want = model(image)[0].square().mean()
    before = {k: v.clone() for k, v in model.named_parameters()}
    wrapper = build(model)
    products.clear()
    with wrapper.optim_context(model):
        loss = model(image)[0].square().mean()
    wrapper.backward(loss)
    assert products and set(products) == {torch.bfloat16}
    assert abs(loss - want) < 0.02 * want
    for weight in model.parameters():
        assert weight.dtype == weight.grad.dtype == torch.float32
    wrapper.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, before[name] - 0.1 * weight.grad)


def test_gradients_are_accumulated(build):
    layer = nn.Linear(3, 3)
    wrapper = build(layer)
    wrapper._accumulative_counts = 2
    before = layer.weight.clone()
    for changes in (False, True):
        with wrapper.optim_context(layer):
            loss = layer(torch.ones(1, 3)).sum()
        wrapper.update_params(loss)
        assert torch.equal(layer.weight, before) != changes


@pytest.mark.parametrize('op', ['roi_align', 'nms'])
def test_a_layer_without_bfloat16(build, op):
    from mmcv.ops import nms, roi_align

    layer = nn.Conv2d(1, 1, 1)
    boxes = torch.tensor([[0, 1.0, 1, 8, 8]])
    with (
        pytest.raises(UserError, match='^Conv2d.*BFloat16.*leave --amp out'),
        build(layer).optim_context(layer),
    ):
        features = layer(torch.rand(1, 1, 8, 8))
        if op == 'roi_align':
            roi_align(features, boxes.type_as(features), 7)
        else:
            nms(boxes[:, 1:].bfloat16(), torch.ones(1), 0.5)


def test_other_errors_are_kept(build):
    layer = nn.Conv2d(1, 1, 1)
    with (
        pytest.raises(RuntimeError, match='^another$'),
        build(layer).optim_context(layer),
    ):
        raise RuntimeError('another')


def test_config_of_mixed_precision_on_gpus():
    """Whatever names AmpOptimWrapper; the config itself is not changed."""
    for kind in (AmpOptimWrapper, 'AmpOptimWrapper', 'mmdet.AmpOptimWrapper'):
        given = dict(type=kind, loss_scale='dynamic', dtype=torch.bfloat16)
        assert in_cpu_amp(given, None) == dict(type=CPUAmpOptimWrapper)
        assert given['loss_scale'] == 'dynamic'
    for given in ({}, dict(type='OptimWrapper'), dict(type='Mine')):
        assert in_cpu_amp(given, None) is given
