import pytest
import torch

from mmssm.backbones import VMamba
from mmssm.checkpoint.key_map import RenamedWeights, arch_name
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
    backbone, head = weights.parts()
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
