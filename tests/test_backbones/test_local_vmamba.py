"""LocalVMamba's own: its scan directions, their search, the map's axes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmssm.backbones import LocalVMamba
from mmssm.backbones.directions import CANDIDATES, LOCAL_VMAMBA_TINY
from mmssm.layers.route_merge import SearchedSum
from mmssm.scans import register_sized_route
from mmssm.scans.route import _SIZED_ROUTES

RELEASED = Path(__file__).parents[1] / 'data' / 'local_mamba_directions.json'
ROUTES = ['h v_flip w2 w7_flip', 'h_flip w3 w2_flip', 'v w7 h', 'w2 v']
MINI = dict(embed_dims=16, depths=(1, 1, 1, 1), d_state=3, directions=ROUTES)


def mixers(model):
    return [block.mixer for stage in model.stages for block in stage.blocks]


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_blocks_take_the_archs_directions(arch):
    released = json.loads(RELEASED.read_text())[f'local_vmamba_{arch}']
    with torch.device('meta'):
        model = LocalVMamba(arch)
    names = [' '.join(mixer.routes) for mixer in mixers(model)]
    assert names == released


def test_directions_of_the_golden_case(golden):
    kwargs = golden('local_vmamba_tiny_cls').meta['kwargs']
    assert [' '.join(d) for d in kwargs['directions']] == list(
        LOCAL_VMAMBA_TINY
    )


def test_directions_are_a_choice():
    arch = dict(MINI, directions='search')
    for directions in (ROUTES, [entry.split() for entry in ROUTES]):
        model = LocalVMamba(arch, directions=directions)
        names = [mixer.routes for mixer in mixers(model)]
        assert names == [tuple(entry.split()) for entry in ROUTES]
        assert not any(isinstance(m.merge, SearchedSum) for m in mixers(model))
        assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 128, 1, 1)


def test_search_has_all_candidates_with_equal_chances():
    torch.manual_seed(0)
    model = LocalVMamba(MINI, directions='search', drop_path_rate=0.0)
    for mixer in mixers(model):
        assert mixer.routes == CANDIDATES
        chances = mixer.merge.probabilities()
        torch.testing.assert_close(
            chances, torch.full((8,), 1 / 8), rtol=0.01, atol=0
        )
        assert chances.unique().numel() > 1
    # Not their plain sums, which a norm leaves no say in.
    outs = model(torch.randn(2, 3, 64, 64))
    sum((o * torch.randn_like(o)).sum() for o in outs).backward()
    for mixer in mixers(model):
        assert mixer.merge.weights.grad.abs().max() > 0


def test_supernet_has_the_originals_parameters():
    arch = dict(embed_dims=32)
    with torch.device('meta'):
        model = LocalVMamba(arch, directions='search')
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters + 1000 * (256 + 1) == 4_576_656


@pytest.mark.parametrize(
    'directions, message',
    [
        (ROUTES[:3], 'must name the routes of 4 blocks, got 3 entries'),
        (['h v'] * 3 + ['h hh'], "of block 3: unknown route 'hh'; known: "),
        (['h v'] * 3 + [[]], 'of block 3: no routes given'),
        (['h v'] * 3 + ['v w2 v'], 'of block 3 name a route twice: v w2 v'),
        ('h v', "must be 'search' or a list with one entry per block"),
        (5, "must be 'search' or a list with one entry per block, got 5"),
        (['h', 'v', 'h', None], 'of block 3: routes are given as names, in a'),
        (
            ['h', 'v', 'h', ['v', 3]],
            r"in one string with spaces, got \['v', 3",
        ),
    ],
)
def test_wrong_directions_are_named(directions, message):
    with pytest.raises(ValueError, match=message) as caught:
        LocalVMamba(MINI, directions=directions)
    assert '\n' not in str(caught.value)


def test_released_inverse_differs_on_maps_that_are_not_square():
    torch.manual_seed(0)
    model = LocalVMamba(MINI).eval()
    released = LocalVMamba(MINI, released_inverse=True).eval()
    released.load_state_dict(model.state_dict())
    with torch.no_grad():
        square = torch.randn(1, 3, 64, 64)
        assert torch.equal(model(square)[0], released(square)[0])
        wide = torch.randn(1, 3, 64, 96)
        assert not torch.allclose(model(wide)[0], released(wide)[0])


@pytest.fixture
def column_windows(monkeypatch):
    """Routes ``t<size>``: the windows of the transposed map."""
    monkeypatch.setattr('mmssm.scans.route._SIZED_ROUTES', dict(_SIZED_ROUTES))

    @register_sized_route('t')
    def transposed(height, width, size):
        route = _SIZED_ROUTES['w'](width, height, size)
        tokens = np.arange(height * width).reshape(height, width).T.ravel()
        return np.where(route < 0, -1, tokens[route])


def transposed_names(entry):
    swap = dict(h='v', v='h', w='t')
    return ' '.join(swap[name[0]] + name[1:] for name in entry.split())


def transpose_weights(model):
    """What the model must hold to do the same to transposed images."""
    weights = {}
    for key, value in model.state_dict().items():
        if key == 'stem.conv.weight' or key.endswith('.conv2d.weight'):
            value = value.mT
        elif '.downsample.' in key:
            # Four corners, columns first: the middle two change places.
            corners = list(value.chunk(4, -1))
            corners[1], corners[2] = corners[2], corners[1]
            value = torch.cat(corners, -1)
        weights[key] = value
    return weights


@pytest.mark.parametrize('size', [(64, 96), (60, 33), (28, 100)])
def test_transposed_images_and_routes_give_transposed_maps(
    column_windows, size
):
    torch.manual_seed(0)
    indices = (0, 1, 2, 3)
    model = LocalVMamba(MINI, out_indices=indices).double().eval()
    other = LocalVMamba(
        MINI,
        directions=[transposed_names(entry) for entry in ROUTES],
        out_indices=indices,
    )
    other = other.double().eval()
    # Reduction weights (2 C, 4 C) and norms (4 C) both end in the corners.
    other.load_state_dict(transpose_weights(model))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for got, want in zip(other(x.mT), model(x)):
            torch.testing.assert_close(got, want.mT)
        assert not torch.allclose(model(x.mT)[0], model(x)[0].mT)
