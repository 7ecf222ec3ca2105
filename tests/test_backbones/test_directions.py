"""LocalMamba's tables, and how lists of routes are read."""

import json
from pathlib import Path

import pytest

from mmssm.backbones.directions import (
    CANDIDATES,
    LOCAL_VIM_TINY,
    LOCAL_VMAMBA_SMALL,
    LOCAL_VMAMBA_TINY,
    parse_directions,
)
from mmssm.scans import parse_routes

RELEASED = Path(__file__).parents[1] / 'data' / 'local_mamba_directions.json'


@pytest.mark.parametrize(
    'name, table, blocks',
    [
        ('local_vim_tiny', LOCAL_VIM_TINY, 20),
        ('local_vmamba_tiny', LOCAL_VMAMBA_TINY, 15),
        ('local_vmamba_small', LOCAL_VMAMBA_SMALL, 33),
    ],
)
def test_directions_are_the_released_ones(name, table, blocks):
    released = json.loads(RELEASED.read_text())[name]
    assert len(released) == blocks
    assert list(table) == released


def test_any_listing_is_parsed():
    parsed = parse_directions(['w13_flip', ('h', 'w1')], 2)
    assert parsed == (('w13_flip',), ('h', 'w1'))


def test_search_takes_all_candidates_in_every_block():
    assert parse_directions('search', 3) == (CANDIDATES,) * 3
    assert parse_routes(CANDIDATES) == CANDIDATES


@pytest.mark.parametrize(
    'directions, message',
    [
        (['h v'] * 3, 'must name the routes of 4 blocks, got 3 entries'),
        (['h v'] * 5, 'must name the routes of 4 blocks, got 5 entries'),
        (['h v'] * 3 + ['h hh'], "of block 3: unknown route 'hh'; known: "),
        (['h v'] * 3 + [[]], 'of block 3: no routes given'),
        ([['w2', 'v', 'w2']] * 4, 'of block 0 name a route twice: w2 v w2'),
        ('h v', "must be 'search' or a list with one entry per block, got 'h"),
        (None, "must be 'search' or a list with one entry per block, got Non"),
    ],
)
def test_wrong_directions_are_named(directions, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_directions(directions, 4)
    assert '\n' not in str(caught.value)
