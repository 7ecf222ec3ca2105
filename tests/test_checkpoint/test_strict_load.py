import pytest
import torch
from torch import nn

from mmssm.checkpoint.strict_load import check_fits
from mmssm.utils import CheckpointError


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_fits(model):
    state = model.state_dict()
    check_fits(model, state)
    check_fits(model, dict(meta={}, state_dict=state))
    check_fits(model, {f'module.{k}': v for k, v in state.items()})
    del state['1.num_batches_tracked']
    check_fits(model, state)


def test_differences_are_named(model):
    state = model.state_dict()
    del state['0.bias']
    state['0.weight'] = torch.zeros(5, 2)
    state['2.weight'] = torch.zeros(1)
    meta = dict(mmssm=dict(family='vmamba', arch='small-s1l20'))
    with pytest.raises(CheckpointError) as caught:
        check_fits(model, dict(meta=meta, state_dict=state))
    text = str(caught.value)
    assert '1 missing: 0.bias' in text
    assert '1 unknown: 2.weight' in text
    assert '0.weight is (5, 2) instead of (3, 2)' in text
    assert 'vmamba small-s1l20' in text
    assert '\n' not in text


def test_long_lists_are_cut(model):
    state = dict(model.state_dict())
    state.update({f'extra.{i}': torch.zeros(1) for i in range(100)})
    with pytest.raises(CheckpointError, match=r'100 unknown: .*\(96 more\)'):
        check_fits(model, state)
