"""docs/adapt_and_inspect.md's examples run, and its layers are there."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from small_models import classifier

import mmssm

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adapt_and_inspect.md').read_text()
TOOL = Path(mmpretrain.__path__[0], '.mim/tools/visualization/vis_cam.py')
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)
model = {model}
test_dataloader = dict(
    dataset=dict(
        type='CustomDataset',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 96)),
            dict(type='PackInputs'),
        ]
    )
)
"""
ARCH = dict(embed_dims=8, depths=(1, 1, 1, 1))


def blocks(title):
    text = re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', PAGE, re.M | re.S)[1]
    return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


@pytest.fixture
def small(monkeypatch):
    """The page's model, with few channels."""
    backbone = mmssm.VMamba
    monkeypatch.setattr(mmssm, 'VMamba', lambda _: backbone(ARCH))


def test_adapters(small):
    pytest.importorskip('peft')
    names = {}
    (block,) = blocks('Adapters')
    exec(block, names)
    assert len(names['layers']) == 4 * 4
    assert names['model'](torch.rand(1, 3, 32, 32))[0].shape[1] == 64


def test_8_bits(small):
    names = {}
    (block,) = blocks('8 bits on a CPU')
    exec(block, names)
    kinds = {type(m).__module__ for m in names['quantized'].modules()}
    assert any('quantized.dynamic' in kind for kind in kinds)
    names['quantized'](torch.rand(1, 3, 32, 32))


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_gradients_of_single_samples(small):
    names = {}
    (block,) = blocks('Gradients of single samples')
    exec(block, names)
    for name, parameter in names['parameters'].items():
        assert names['grads'][name].shape == (2, *parameter.shape)


def activation_map(config, image, layer, category):
    """Grad-CAM by its definition: weights are the mean gradients."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config).eval()
    torch.manual_seed(0)
    state = {
        k: torch.randn_like(v) if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    model.load_state_dict(state)
    maps = []
    module = model.get_submodule(layer)
    module.register_forward_hook(lambda *args: maps.append(args[2]))
    x = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    logits = model((x - 127) / 127)
    (grad,) = torch.autograd.grad(logits[0, category], maps[0])
    weights = grad.mean((2, 3), keepdim=True)
    cam = (weights * maps[0]).sum(1).clamp_min(0)[0].detach().numpy()
    cam = (cam - cam.min()) / (1e-7 + cam.max() - cam.min())
    return cv2.resize(cam, image.shape[1::-1]), state


@pytest.mark.parametrize(
    'kind, layer',
    [
        ('VMamba', None),
        ('Vim', 'backbone.to_map'),
        ('LocalVim', 'backbone.to_map'),
    ],
)
def test_mmpretrains_tool_draws_what_the_class_depends_on(
    tmp_path, kind, layer
):
    """On images that are not square, at the page's layers."""
    pytest.importorskip('pytorch_grad_cam')
    config = classifier(kind)
    if layer == 'backbone.to_map':
        config.update(neck=None, head=dict(config['head'], in_channels=16))
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    cam, state = activation_map(config, image, layer or 'backbone.norm3', 1)
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    (tmp_path / 'config.py').write_text(CONFIG.format(model=config))
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    command = [TOOL, 'image.png', 'config.py', 'weights.pth']
    command += ['--target-category', '1', '--save-path', 'cam.png']
    if layer:
        command += ['--target-layers', layer]
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    colors = cv2.applyColorMap(np.uint8(255 * cam), cv2.COLORMAP_JET)
    blend = 0.5 * colors / 255 + 0.5 * image / 255
    want = np.uint8(255 * blend / blend.max())
    got = cv2.imread(str(tmp_path / 'cam.png'))
    assert cam.std() > 0.05
    assert np.abs(got.astype(int) - want).mean() < 2
