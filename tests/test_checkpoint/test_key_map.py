"""Renaming by rules, packing, and the shapes that a file must have."""

import pytest
import torch
from torch import nn

from mmssm.backbones import SpatialMamba, VMamba
from mmssm.checkpoint.key_map import (
    Packing,
    RenamedWeights,
    arch_name,
    expected_shapes,
    shapes_of,
)
from mmssm.utils import CheckpointError

RULES = (
    ('layers.#.blocks.#.op.conv.1.*', 'stages.#.blocks.#.mixer.conv.*'),
    ('layers.#.blocks.#.op.*', 'stages.#.blocks.#.mixer.*'),
    ('layers.#.blocks.#.mixer.*', 'stages.#.blocks.#.mixer.*'),
    ('scale', 'alpha'),
    ('head.*', 'head.fc.*'),
)


def renamed(**keys):
    keys = {k.replace('__', '.'): torch.ones(v) for k, v in keys.items()}
    return RenamedWeights(keys, RULES)


def test_first_rule_that_fits_whole_keys():
    weights = renamed(
        layers__3__blocks__12__op__conv__1__bias=2,
        layers__3__blocks__12__op__conv__2=4,
        scale=1,
        head__weight=3,
    )
    assert list(weights) == [
        'stages.3.blocks.12.mixer.conv.bias',
        'stages.3.blocks.12.mixer.conv.2',
        'alpha',
        'head.fc.weight',
    ]
    backbone, head = weights.split_head()
    assert list(head) == ['fc.weight'] and len(backbone) == 3


@pytest.mark.parametrize(
    'key', ['xlayers.0.blocks.0.op.a', 'layers.a.blocks.0.op.a', 'scale.x']
)
def test_key_of_no_rule(key):
    with pytest.raises(CheckpointError, match=f"key '{key}' is not one of"):
        RenamedWeights({key: torch.ones(1)}, RULES)


def test_names_back():
    old = renamed(layers__0__blocks__0__mixer__A=1)
    assert old.original('stages.0.blocks.0.mixer.A') == (
        'layers.0.blocks.0.mixer.A'
    )
    # As the file's other keys are named, else by the first rule.
    assert old.original('stages.1.blocks.2.mixer.B') == (
        'layers.1.blocks.2.mixer.B'
    )
    assert renamed(scale=1).original('stages.1.blocks.2.mixer.B') == (
        'layers.1.blocks.2.op.B'
    )
    assert old.original('alpha') == 'scale'
    assert old.original('no.rule') == 'no.rule'


def test_depths():
    keys = {
        f'layers.{stage}.blocks.{block}.op.A': 1
        for stage, depth in enumerate((1, 3, 11, 2))
        for block in range(depth)
    }
    assert renamed(**keys).depths() == [1, 3, 11, 2]
    with pytest.raises(CheckpointError, match=r'stages \[0\] instead'):
        renamed(layers__0__blocks__0__op__A=1).depths()


@pytest.mark.parametrize('shape, axis', [((), 0), ((2,), 1), ((2, 0), 1)])
def test_size_that_is_not_there(shape, axis):
    with pytest.raises(CheckpointError, match="'scale' has shape"):
        renamed(scale=shape).size('alpha', axis)


def test_arch_name():
    rows = VMamba.arch_settings
    depths = rows['small-s2l15']['depths']
    fields = dict(rows['small-s2l15'], depths=list(depths))
    del fields['drop_path_rate']
    assert arch_name(VMamba, fields) == 'small-s2l15'
    assert arch_name(VMamba, dict(fields, d_state=3)) is None


def test_two_keys_of_one_name():
    keys = dict(
        layers__0__blocks__0__op__A=1, layers__0__blocks__0__mixer__A=1
    )
    with pytest.raises(CheckpointError, match='its keys .* mean the same'):
        renamed(**keys)


@pytest.mark.parametrize(
    'expected, message',
    [
        (dict(alpha=(2,), beta=(1,)), "key 'beta' is missing"),
        (dict(alpha=(3,)), r"key 'scale' has shape \(2,\) instead of \(3,\)"),
        ({}, "key 'scale' is not one of its own"),
    ],
)
def test_check_names_what_differs(expected, message):
    weights = renamed(scale=2)
    weights.check(dict(alpha=(2,)))
    with pytest.raises(CheckpointError, match=message):
        weights.check(expected)


def test_head_shapes():
    assert renamed(scale=2).head_shapes(8) == {}
    want = {'head.fc.weight': (3, 8), 'head.fc.bias': (3,)}
    assert renamed(head__weight=(3, 8)).head_shapes(8) == want
    assert renamed(head__bias=3).head_shapes(8) == want
    with pytest.raises(CheckpointError, match="'head.bias' has shape"):
        renamed(head__bias=0).head_shapes(8)


SHAPES = {
    'a.stack': (2, 5, 3),
    'a.join': (10, 3),
    'a.filter': (2, 5, 3, 3),
    'a.other': (7,),
}


def test_packing_takes_parts_apart_and_together():
    packing = Packing(2, ('.stack', '.join'), filters=('.filter',))
    unpacked = packing.unpack_shapes(SHAPES)
    assert unpacked == {
        'a.stack.0': (5, 3),
        'a.stack.1': (5, 3),
        'a.join.0': (5, 3),
        'a.join.1': (5, 3),
        'a.filter.0': (5, 1, 3, 3),
        'a.filter.1': (5, 1, 3, 3),
        'a.other': (7,),
    }
    # Part 1 may come first in a file.
    parts = {k: torch.randn(unpacked[k]) for k in sorted(unpacked)[::-1]}
    packed = packing.pack(parts, SHAPES)
    assert {k: tuple(v.shape) for k, v in packed.items()} == SHAPES
    assert torch.equal(packed['a.stack'][1], parts['a.stack.1'])
    assert torch.equal(packed['a.join'][5:], parts['a.join.1'])
    assert torch.equal(packed['a.filter'][0], parts['a.filter.0'][:, 0])
    assert packed['a.other'] is parts['a.other']


@pytest.mark.parametrize(
    'keys, norms',
    [
        (dict(scale=1), set()),
        (dict(head__bias=10), {'norm3'}),
        (dict(norm1__bias=128), {'norm1'}),
    ],
)
def test_expected_shapes_are_those_of_the_model_and_the_files_norms(
    keys, norms
):
    rules = (*RULES, ('norm#.*', 'norm#.*'))
    keys = {k.replace('__', '.'): torch.ones(v) for k, v in keys.items()}
    found = expected_shapes(SpatialMamba, 'tiny', RenamedWeights(keys, rules))
    with torch.device('meta'):
        model = SpatialMamba('tiny', out_indices=(0, 1, 2, 3))
    want = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    for i in range(4):
        if f'norm{i}' not in norms:
            del want[f'norm{i}.weight'], want[f'norm{i}.bias']
    if 'head.bias' in keys:
        want |= {'head.fc.weight': (10, 512), 'head.fc.bias': (10,)}
    assert found == want


def test_shapes_of_a_model_that_cannot_be():
    assert shapes_of(lambda: nn.Linear(2, 3)) == dict(weight=(3, 2), bias=(3,))
    with pytest.raises(CheckpointError, match='no model has: .*no arch'):
        shapes_of(lambda: VMamba('no such'))
