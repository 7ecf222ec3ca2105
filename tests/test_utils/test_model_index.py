"""Names of models in the libraries' own functions, after import mmssm."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope

import mmssm  # noqa: F401
from mmssm.utils import model_index

NAME = 'vmamba-tiny-s1l8_8xb128_in1k'


@pytest.mark.parametrize(
    'first, second', [('mmssm', 'mmpretrain'), ('mmpretrain', 'mmssm')]
)
def test_list_models(first, second):
    """Whichever is imported first; mmssm imports no library itself."""
    code = f"""
        import sys
        import {first}
        if '{first}' == 'mmssm':
            assert not {{'mmdet', 'mmseg', 'mmpretrain'}} & set(sys.modules)
        import {second}
        from mmpretrain import list_models
        assert '{NAME}' in list_models('*mamba*'), list_models('*mamba*')
        assert 'resnet50_8xb32_in1k' in list_models()
    """
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
        check=True,
    )


def test_inference_model(tmp_path, monkeypatch):
    """The released file's place is taken by one of the same name."""
    from mmpretrain import get_model, inference_model

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    torch.manual_seed(0)
    model = get_model(NAME)
    with torch.no_grad():
        model.head.fc.bias[7] = 100.0
    (tmp_path / 'checkpoints').mkdir()
    torch.save(
        dict(state_dict=model.state_dict()),
        tmp_path / 'checkpoints' / 'vssm1_tiny_0230s_ckpt_epoch_264.pth',
    )
    image = np.zeros((64, 64, 3), np.uint8)
    result = inference_model(NAME, image)
    assert result['pred_label'] == 7


@pytest.mark.parametrize(
    'inferencer, scope, name',
    [
        (
            'mmdet.apis.DetInferencer',
            'mmdet',
            'mask-rcnn_fractal-mamba-tiny_fpn_1x_coco',
        ),
        (
            'mmseg.apis.MMSegInferencer',
            'mmseg',
            'fractal-mamba-tiny-in1k-pre_upernet_4xb4-160k_ade20k-512x512',
        ),
    ],
)
def test_inferencers(inferencer, scope, name):
    """A model without published weights starts from random ones."""
    package, _, kind = inferencer.rpartition('.')
    module = __import__(package, fromlist=[kind])
    with DefaultScope.overwrite_default_scope(scope):
        model = getattr(module, kind)(name, device='cpu').model
    assert type(model.backbone).__name__ == 'FractalMamba'


def test_the_libraries_own_names_are_still_found():
    names = BaseInferencer.list_models('mmdet')
    assert 'mask-rcnn_r50_fpn_1x_coco' in names
    assert 'mask-rcnn_vmamba-tiny-s1l8_fpn_1x_coco' in names


def test_package_without_its_index(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(model_index, 'INDEX', tmp_path / 'model-index.yml')
    monkeypatch.setattr(
        model_index, 'when_imported', lambda *args: called.append(args)
    )
    model_index.register_model_names()
    assert not called
