"""Tables of positions: resized, around a class token, and as rotations."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmssm.layers.positions import (
    RotaryPositions,
    insert_in_middle,
    resize_position_embedding,
    resize_table,
    without_middle,
)

RESIZES = [((3, 5), (6, 4)), ((4, 4), (9, 2)), ((2, 7), (1, 1))]


def resized_by_hand(rows, grid, to):
    """Entries (H * W, C) as one image per channel, resized, as entries."""
    (height, width), channels = grid, rows.shape[-1]
    images = torch.empty(1, channels, height, width, dtype=rows.dtype)
    for i in range(height):
        for j in range(width):
            images[0, :, i, j] = rows[i * width + j]
    images = F.interpolate(images, to, mode='bicubic', align_corners=False)
    return torch.stack(
        [images[0, :, i, j] for i in range(to[0]) for j in range(to[1])]
    )


@pytest.mark.parametrize('lead', [(), (1,), (2, 3)])
@pytest.mark.parametrize('grid, to', RESIZES)
def test_resized_tables_are_resized_images(device, grid, to, lead):
    torch.manual_seed(0)
    table = torch.randn(*lead, grid[0] * grid[1], 6)
    got = resize_table(table.to(device), grid, to).cpu()
    assert got.shape == (*lead, to[0] * to[1], 6)
    flat = zip(
        got.view(-1, *got.shape[-2:]), table.view(-1, *table.shape[-2:])
    )
    for new, rows in flat:
        torch.testing.assert_close(new, resized_by_hand(rows, grid, to))


def test_a_table_of_the_same_grid_is_the_table_itself():
    table = torch.randn(1, 15, 4)
    assert resize_table(table, (3, 5), (3, 5)) is table
    assert resize_table(table, [3, 5], (3, 5)) is table
    table = torch.randn(1, 16, 4)
    for class_token, grid in ((True, (3, 5)), (False, (2, 8))):
        same = resize_position_embedding(table, grid, grid, class_token)
        assert same is table


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_16_bit_tables_are_resized_in_float32(dtype):
    torch.manual_seed(0)
    table = torch.randn(1, 15, 4, dtype=dtype)
    got = resize_table(table, (3, 5), (6, 4))
    want = resized_by_hand(table[0].float(), (3, 5), (6, 4))
    assert got.dtype == dtype
    rounding = 0.501 * torch.finfo(dtype).eps
    torch.testing.assert_close(got[0].float(), want, rtol=rounding, atol=1e-6)


def test_float64_tables_are_resized_in_float64():
    table = torch.randn(1, 15, 4, dtype=torch.float64)
    got = resize_table(table, (3, 5), (6, 4))
    want = resized_by_hand(table[0], (3, 5), (6, 4))
    torch.testing.assert_close(got[0], want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('grid, to', RESIZES)
def test_the_class_tokens_entry_stays_untouched_in_the_middle(grid, to):
    torch.manual_seed(0)
    patches = torch.randn(1, grid[0] * grid[1], 6)
    token = torch.randn(6)
    table = torch.tensor(patches[0].tolist())
    before = grid[0] * grid[1] // 2
    table = torch.cat([table[:before], token[None], table[before:]])[None]
    got = resize_position_embedding(table, grid, to, class_token=True)
    after = to[0] * to[1] // 2
    assert got.shape == (1, to[0] * to[1] + 1, 6)
    assert torch.equal(got[0, after], token)
    rest = torch.cat([got[0, :after], got[0, after + 1 :]])
    torch.testing.assert_close(rest, resized_by_hand(patches[0], grid, to))


@pytest.mark.parametrize('grid, to', RESIZES)
def test_without_a_class_token_all_entries_are_resized(grid, to):
    table = torch.randn(1, grid[0] * grid[1], 6)
    got = resize_position_embedding(table, grid, to, class_token=False)
    torch.testing.assert_close(got[0], resized_by_hand(table[0], grid, to))


@given(batch=st.integers(0, 3), tokens=st.integers(1, 40))
def test_a_token_goes_into_the_middle_and_out(batch, tokens):
    x = torch.arange(batch * tokens * 2.0).view(batch, tokens, 2)
    token = torch.full((batch, 1, 2), -1.0)
    longer = insert_in_middle(x, token)
    assert longer.shape == (batch, tokens + 1, 2)
    assert (longer[:, tokens // 2] == -1).all()
    assert (longer == -1).sum() == batch * 2
    assert torch.equal(without_middle(longer), x)


def angle(channel, embed_dims, row, column, grid):
    """EVA-02's angle: the first half turns with the row, in pairs."""
    half = embed_dims // 2
    place, side = (row, grid[0]) if channel < half else (column, grid[1])
    pair = channel % half // 2
    return place / side * 14 * 10000 ** (-2 * pair / half)


@pytest.mark.parametrize('grid', [(14, 14), (3, 5), (4, 1)])
@pytest.mark.parametrize('embed_dims', [4, 12, 32])
def test_rotary_tables_hold_the_angles(embed_dims, grid):
    rope = RotaryPositions(embed_dims, grid)
    cos, sin = rope.tables(*grid)
    want = torch.tensor(
        [
            [angle(c, embed_dims, i, j, grid) for c in range(embed_dims)]
            for i in range(grid[0])
            for j in range(grid[1])
        ]
    )
    torch.testing.assert_close(cos, want.cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin, want.sin(), rtol=0, atol=1e-5)


def test_rotary_tables_are_those_of_the_released_files(golden):
    weights = golden('local_vim_tiny_cls').state_dict()
    rope = RotaryPositions(192, (14, 14))
    for got, name in ((rope.cos, 'freqs_cos'), (rope.sin, 'freqs_sin')):
        want = weights[f'rope.{name}']
        assert want.std() > 0.1
        torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


def test_rotary_tables_of_other_sizes_are_resized():
    """As LocalVim does it; not computed again from angles."""
    rope = RotaryPositions(12, (4, 4))
    for got, own in zip(rope.tables(6, 3), (rope.cos, rope.sin)):
        want = resized_by_hand(own, (4, 4), (6, 3))
        torch.testing.assert_close(got, want)
    fresh = RotaryPositions(12, (6, 3))
    assert not torch.allclose(rope.tables(6, 3)[0], fresh.cos, atol=0.01)


def test_tables_are_saved_but_not_learned():
    rope = RotaryPositions(12, (4, 4))
    assert set(rope.state_dict()) == {'cos', 'sin'}
    assert not list(rope.parameters())


def test_rotation_turns_each_pair_by_its_angle(device):
    torch.manual_seed(0)
    grid, dims = (3, 5), 12
    rope = RotaryPositions(dims, grid).to(device)
    x = torch.randn(2, 15, dims)
    got = rope(x.to(device), *rope.tables(*grid)).cpu()
    for token in range(15):
        for c in range(0, dims, 2):
            turn = angle(c, dims, token // 5, token % 5, grid)
            a, b = x[:, token, c], x[:, token, c + 1]
            want = torch.stack(
                [
                    a * math.cos(turn) - b * math.sin(turn),
                    a * math.sin(turn) + b * math.cos(turn),
                ],
                1,
            )
            torch.testing.assert_close(
                got[:, token, c : c + 2], want, rtol=1e-4, atol=1e-5
            )


def test_rotation_keeps_the_norm_of_each_pair():
    torch.manual_seed(0)
    rope = RotaryPositions(32, (7, 4))
    x = torch.randn(2, 28, 32)
    got = rope(x, *rope.tables(7, 4))
    assert not torch.allclose(got[:, 1:], x[:, 1:], atol=0.1)
    torch.testing.assert_close(
        got.unflatten(2, (16, 2)).norm(dim=-1),
        x.unflatten(2, (16, 2)).norm(dim=-1),
    )


@pytest.mark.parametrize('embed_dims', [6, 3, 14])
def test_channels_that_make_no_pairs_are_named(embed_dims):
    message = f'embed_dims must be a multiple of 4, got {embed_dims}'
    with pytest.raises(ValueError, match=message):
        RotaryPositions(embed_dims, (4, 4))
