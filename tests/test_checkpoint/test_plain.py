"""What the files of plain models share: fields, grids, expected tensors."""

import pytest
import torch

from mmssm.backbones import LocalVim, Vim
from mmssm.checkpoint.key_map import RenamedWeights
from mmssm.checkpoint.plain import (
    COMMON_RULES,
    common_fields,
    expected_shapes,
    grid_side,
    packing,
)
from mmssm.utils import CheckpointError

# mmssm's own names of a mixer's parts are taken as they are.
RULES = (
    *COMMON_RULES,
    ('layers.#.mixer.A_logs.0', 'layers.#.mixer.A_logs.0'),
    ('norm#.*', 'norm#.*'),
)


def renamed(**shapes):
    keys = {k.replace('__', '.'): torch.ones(v) for k, v in shapes.items()}
    return RenamedWeights(keys, RULES)


FIELDS = dict(
    patch_embed__proj__weight=(32, 3, 8, 8),
    layers__0__mixer__A_logs__0=(48, 5),
    layers__0__mixer__out_proj__weight=(32, 48),
    layers__1__norm__weight=32,
)


def test_fields_are_read_off():
    want = dict(
        embed_dims=32,
        depth=2,
        patch_size=8,
        d_state=5,
        ssm_ratio=1.5,
        class_token=False,
    )
    assert common_fields(renamed(**FIELDS)) == want
    with_token = renamed(**FIELDS, cls_token=(1, 1, 32))
    assert common_fields(with_token) == dict(want, class_token=True)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(layers__3__norm__weight=32), r'only the layers \[0, 1, 3\]'),
        (dict(layers__0__mixer__A_logs__0=(48, 0)), 'A_logs.0. has shape'),
    ],
)
def test_fields_that_cannot_be_read_are_named(changes, message):
    with pytest.raises(CheckpointError, match=message):
        common_fields(renamed(**{**FIELDS, **changes}))


@pytest.mark.parametrize('length', [1, 16, 196])
def test_side_of_a_square_map(length):
    side = grid_side(renamed(pos_embed=(1, length, 8)))
    assert side * side == length
    with_token = renamed(pos_embed=(1, length + 1, 8), cls_token=(1, 1, 8))
    assert grid_side(with_token) == side
    with pytest.raises(CheckpointError, match=f'of {length + 1} patches'):
        grid_side(renamed(pos_embed=(1, length + 1, 8)))


@pytest.mark.parametrize(
    'backbone, norms, has_head',
    [
        (Vim, [], False),
        (Vim, ['norm'], False),
        (Vim, ['norm'], True),
        (LocalVim, ['norm4', 'norm19'], False),
    ],
)
def test_expected_tensors_are_the_models(backbone, norms, has_head):
    length = 5 * 5 + (backbone is Vim)
    weights = {'pos_embed': torch.ones(1, length, 192)}
    if backbone is Vim:
        weights['cls_token'] = torch.ones(1, 1, 192)
    for norm in norms:
        key = 'norm_f' if norm == 'norm' else norm
        weights[f'{key}.weight'] = torch.ones(192)
    if has_head:
        weights['head.bias'] = torch.ones(10)
    found = expected_shapes(backbone, 'tiny', RenamedWeights(weights, RULES))
    outputs = [int(norm[4:]) for norm in norms if norm != 'norm']
    options = dict(out_type='featmap', out_indices=outputs) if outputs else {}
    with torch.device('meta'):
        model = backbone('tiny', img_size=80, **options)
    want = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if not norms:
        del want['norm.weight']
    if has_head:
        want |= {'head.fc.weight': (10, 192), 'head.fc.bias': (10,)}
    assert found == want


def test_packing_holds_every_tensor_of_the_routes():
    with torch.device('meta'):
        mixer = LocalVim('tiny').layers[0].mixer
    shapes = {f'x.mixer.{k}': v.shape for k, v in mixer.state_dict().items()}
    unpacked = packing(4).unpack_shapes(shapes)
    routes = {k for k in unpacked if k[-2:] in ('.0', '.1', '.2', '.3')}
    of_routes = {k.rpartition('.')[0] for k in routes}
    shared = {k for k in shapes if '.merge.' in k or 'proj.weight' in k}
    assert of_routes == set(shapes) - shared
    assert len(routes) == 4 * len(of_routes)
    assert unpacked['x.mixer.conv_weight.3'] == (384, 1, 4)
    assert unpacked['x.mixer.A_logs.0'] == (384, 16)
