"""What LocalMamba's two models share: directions, and a search's weights."""

import pytest
import torch

from mmssm.backbones import LocalVim, LocalVMamba
from mmssm.checkpoint import CheckpointError, convert_upstream
from mmssm.checkpoint.local_mamba import check_directions


@pytest.mark.parametrize(
    'model, key, block',
    [
        (
            'local_vmamba_tiny_search',
            'layers.2.blocks.8.op.multi_scan.weights',
            'stages.2.blocks.8',
        ),
        (
            'local_vim_tiny_search',
            'layers.19.mixer.multi_scan.weights',
            'layers.19',
        ),
    ],
)
def test_learned_weights_of_a_search(original, model, key, block):
    weights = original(model)
    assert weights[key].shape == (8, 1, 1, 1)
    weights[key] = torch.arange(8.0).view(8, 1, 1, 1)
    converted = convert_upstream(weights, 'x.ckpt')['state_dict']
    found = converted[f'backbone.{block}.mixer.merge.weights']
    assert torch.equal(found, torch.arange(8.0))


def test_a_search_has_all_candidates_as_directions(original):
    for model in ('local_vmamba_tiny', 'local_vim_tiny'):
        searched = convert_upstream(original(f'{model}_search'), 'x.ckpt')
        assert searched['meta']['mmssm']['arch']['directions'] == 'search'
        plain = convert_upstream(original(model), 'x.ckpt')
        assert plain['meta']['mmssm']['arch'] == 'tiny'


@pytest.mark.parametrize(
    'backbone, num_blocks', [(LocalVMamba, 15), (LocalVim, 20)]
)
def test_blocks_and_routes_must_be_those_of_the_arch(backbone, num_blocks):
    check_directions(backbone, 'tiny', num_blocks, 4)
    check_directions(backbone, dict(directions='search'), 3, 8)
    for found in ((num_blocks + 1, 4), (num_blocks, 3)):
        with pytest.raises(CheckpointError) as caught:
            check_directions(backbone, 'tiny', *found)
        assert str(caught.value) == (
            f'it has {found[0]} blocks of {found[1]} routes and does not tell '
            'which scan directions they are; known are those of '
            f'{num_blocks} blocks of 4'
        )
