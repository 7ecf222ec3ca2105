"""Files of earlier versions of mmssm."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from small_models import BACKBONES

import mmssm  # noqa: F401
from mmssm.checkpoint.own_names import split_gates, update_names

FAMILIES = [name for name in BACKBONES if '.' not in name]


def build(family):
    return MODELS.build(dict(type=family, **BACKBONES[family]))


def as_before(weights):
    """Gates with the values' projection, downsampling a stage earlier."""
    old = {}
    for name, value in weights.items():
        for stage in (1, 2, 3):
            name = name.replace(
                f'stages.{stage}.downsample', f'stages.{stage - 1}.downsample'
            )
        if '.gate_proj.' in name:
            name = name.replace('gate_proj', 'in_proj')
            value = torch.cat((old[name], value))
        old[name] = value
    return old


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_names_become_todays(family, prefix):
    today = {prefix + k: v for k, v in build(family).state_dict().items()}
    old = as_before(today)
    assert set(old) != set(today)
    for given in (old, today):
        found = update_names(given)
        assert set(found) == set(today)
        assert all(torch.equal(found[name], today[name]) for name in today)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_file_loads_as_a_whole(tmp_path, family):
    source, model = build(family), build(family)
    old = {
        f'backbone.{k}': v for k, v in as_before(source.state_dict()).items()
    }
    averages = {f'module.{k}': v for k, v in old.items()}
    averages['steps'] = torch.tensor(3)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=old, ema_state_dict=averages), path)
    model.load_pretrained(str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    loaded = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    names = {f'module.{name}' for name in loaded['state_dict']}
    assert set(loaded['ema_state_dict']) == names | {'steps'}


def test_weights_of_other_projects_stay():
    weight = torch.zeros(8, 4)
    swin = {'backbone.stages.0.downsample.reduction.weight': weight}
    mamba = {
        'layers.0.mixer.in_proj.weight': weight,
        'layers.0.mixer.out_proj.weight': weight.mT,
        'layers.0.mixer.x_proj.weight': weight,
    }
    for weights in (swin, mamba, {0: weight}, {}):
        assert update_names(weights) == weights


def test_an_ungated_projection_stays():
    weights = {
        'mixer.in_proj.weight': torch.zeros(8, 4),
        'mixer.out_proj.weight': torch.zeros(4, 8),
    }
    assert split_gates(weights) == weights
