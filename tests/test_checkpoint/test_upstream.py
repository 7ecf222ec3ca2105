import pytest
import torch

from mmssm.checkpoint import CheckpointError, convert_upstream


def tensors(*keys):
    return {key: torch.ones(1) for key in keys}


@pytest.mark.parametrize(
    'checkpoint',
    [
        [1, 2],
        {},
        dict(epoch=3),
        dict(model=torch.nn.Linear(1, 1)),
        tensors('conv1.weight', 'fc.bias'),
        dict(
            state_dict=tensors(
                'backbone.layer1.0.conv1.weight', 'head.fc.bias'
            )
        ),
        dict(
            meta={},
            state_dict=tensors(
                'backbone.stages.0.blocks.0.mixer.x_proj_weight'
            ),
            optimizer={},
        ),
    ],
)
def test_other_checkpoints_are_left_alone(checkpoint):
    assert convert_upstream(checkpoint, 'x.pth') is None


@pytest.mark.parametrize(
    'name, key',
    [
        ('LocalVMamba', 'layers.0.blocks.0.op.multi_scan.attn.norm.weight'),
        (
            'Spatial-Mamba',
            'layers.0.blocks.0.self_attention.state_fusion.alpha',
        ),
        ('LocalVim', 'layers.0.mixer.x_proj_0.weight'),
        ('Vim', 'layers.0.mixer.A_b_log'),
        ('GrootV', 'levels.0.blocks.0.TreeSSM.x_proj_weight'),
    ],
)
def test_family_that_cannot_be_converted(name, key):
    weights = tensors(key, 'layers.0.blocks.0.op.x_proj_weight')
    with pytest.raises(CheckpointError, match=rf'x\.pth holds {name},'):
        convert_upstream(dict(model=weights), 'x.pth')
