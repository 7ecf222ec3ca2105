"""Originals' state dicts, and the shapes of mmssm's models."""

import json
from pathlib import Path

import pytest
import torch

from mmssm.checkpoint import convert_upstream
from mmssm.utils import CheckpointError

KEYS_FOLDER = Path(__file__).parents[1] / 'data' / 'upstream_keys'


@pytest.fixture(scope='session')
def upstream_keys():
    """{model: depths and original key -> shape}.

    ``blocks.*`` stands for each of a stage's blocks, ``layers.*`` for each of
    a plain model's layers.
    """
    found = {}
    for path in KEYS_FOLDER.glob('*.json'):
        found.update(json.loads(path.read_text()))
    return found


@pytest.fixture
def original(upstream_keys):
    """Make an original's state dict; the tensors take no memory."""

    def original(model):
        depths, keys = upstream_keys[model].values()
        found = {}
        for key, shape in keys.items():
            stage = int(key.split('.')[1]) if 'blocks.*' in key else 0
            for block in range(depths[stage] if '*' in key else 1):
                name = key.replace('*', str(block))
                found[name] = torch.zeros(()).expand(shape)
        return found

    return original


@pytest.fixture
def shapes():
    """Shapes of a state dict's tensors, by name."""
    return lambda state_dict: {k: v.shape for k, v in state_dict.items()}


@pytest.fixture
def model_shapes(shapes):
    """Shapes of a backbone's state dict, with the prefix of files."""

    def model_shapes(backbone, **arguments):
        with torch.device('meta'):
            model = backbone(**arguments)
        found = shapes(model.state_dict())
        return {f'backbone.{name}': shape for name, shape in found.items()}

    return model_shapes


@pytest.fixture
def assert_moved():
    """Check that each key's values arrive under mmssm's name.

    Takes a state dict and ``moves``, the original keys and mmssm's names.
    """

    def assert_moved(weights, moves):
        for number, key in enumerate(moves):
            weights[key] = torch.full(weights[key].shape, float(number + 1))
        converted = convert_upstream(weights, 'x.pth')['state_dict']
        for number, name in enumerate(moves.values()):
            name = name if name.startswith('head.') else f'backbone.{name}'
            assert (converted[name] == number + 1).all(), name

    return assert_moved


@pytest.fixture
def refusal(original):
    """The error for an original with some keys changed.

    ``None`` removes a key; a tuple gives it that shape.
    """

    def refusal(family, model, changes):
        weights = original(model)
        for key, shape in changes.items():
            if shape is None:
                del weights[key]
            else:
                weights[key] = torch.zeros(shape)
        with pytest.raises(CheckpointError) as caught:
            convert_upstream(dict(model=weights), 'some.pth')
        message = str(caught.value)
        start = f'some.pth looks like {family}, but '
        assert message.startswith(start) and '\n' not in message
        return message.removeprefix(start)

    return refusal
