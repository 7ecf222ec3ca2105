import cv2
import numpy as np
import pytest

from mmssm.datasets.mini.digits import load_digit_bank
from mmssm.datasets.mini.levir_cd_plus import write_levir_cd_plus
from mmssm.datasets.mini.pairs import (
    DIGITS,
    FATES,
    PAIR_SIZE,
    draw_pair,
    draw_pairs,
)

FEW = dict(train=5, test=3)


@pytest.fixture(scope='module')
def pairs():
    return list(draw_pairs('train', 80))


def difference(pair):
    """Mean over the channels, (H, W)."""
    return np.abs(pair.before.astype(float) - pair.after).mean(2)


def best_f1(values, changed):
    """Of all thresholds over the values."""
    order = np.argsort(-values, axis=None)
    right = np.cumsum(changed.ravel()[order])
    found = np.arange(1, right.size + 1)
    return (2 * right / (found + right[-1])).max()


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_files_hold_the_pairs(tmp_path):
    write_levir_cd_plus(tmp_path, FEW)
    for split, count in FEW.items():
        for folder in ('A', 'B', 'label'):
            names = [p.name for p in (tmp_path / split / folder).iterdir()]
            expected = [f'{number:04d}.png' for number in range(count)]
            assert sorted(names) == expected
        for number, pair in enumerate(draw_pairs(split, count)):
            name = f'{number:04d}.png'
            before = read(tmp_path / split / 'A' / name)
            after = read(tmp_path / split / 'B' / name)
            label = read(tmp_path / split / 'label' / name)
            assert np.array_equal(before, pair.before)
            assert np.array_equal(after, pair.after)
            assert np.array_equal(label == 255, pair.changed)
            assert np.array_equal(label == 0, ~pair.changed)


def test_equal_states_give_equal_pairs():
    bank = load_digit_bank('test')
    first, second, other = (
        draw_pair(np.random.default_rng(seed), bank) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.before, second.before)
    assert np.array_equal(first.after, second.after)
    assert not np.array_equal(first.before, other.before)


def test_some_change_and_some_do_not(pairs):
    shape = (PAIR_SIZE, PAIR_SIZE)
    assert all(pair.changed.shape == shape for pair in pairs)
    assert all(pair.before.shape == (*shape, 3) for pair in pairs)
    shares = np.array([pair.changed.mean() for pair in pairs])
    assert 0.05 < shares.mean() < 0.2
    assert (shares == 0).any()  # nothing changed
    assert shares.max() < 0.5


@pytest.mark.parametrize('fate', FATES)
def test_label_is_the_ink_of_what_changed(monkeypatch, fate):
    """Seen in even light, where digits that stay differ by fading alone."""
    from mmssm.datasets.mini import pairs

    monkeypatch.setattr(pairs, 'take_picture', lambda rng, sheet: sheet)
    monkeypatch.setattr(
        pairs, 'FATES', {name: float(name == fate) for name in FATES}
    )
    for pair in pairs.draw_pairs('train', 10):
        before, after = (
            image.astype(float).mean(2) for image in (pair.before, pair.after)
        )
        lost, new = before < after - 12, after < before - 12
        if fate == 'stays':
            assert not pair.changed.any()
            continue
        assert (lost | new)[pair.changed].mean() > 0.95
        assert (lost & pair.changed).any() == (fate != 'appears')
        assert (new & pair.changed).any() == (fate != 'vanishes')
        # Ink is faint at a glyph's edge and where the pen was lifted.
        near = cv2.dilate(pair.changed.astype(np.uint8), np.ones((5, 5)))
        assert (lost | new)[near == 0].mean() < 0.02


def test_difference_does_not_show_what_changed(pairs):
    changed = np.stack([pair.changed for pair in pairs])
    assert best_f1(changed.astype(float), changed) == 1
    differences = np.stack([difference(pair) for pair in pairs])
    assert best_f1(differences, changed) < 0.52
    ratios = [
        np.abs(np.log((pair.before + 8.0) / (pair.after + 8.0))).mean(2)
        for pair in pairs
    ]
    assert best_f1(np.stack(ratios), changed) < 0.6


def test_digits_of_the_splits_are_by_other_writers(monkeypatch):
    from mmssm.datasets.mini import pairs

    drawn = []
    monkeypatch.setattr(
        pairs, 'draw_glyph', lambda rng, ink, sizes: drawn.append(ink) or ink
    )
    seen = {}
    for split in FEW:
        drawn.clear()
        list(pairs.draw_pairs(split, 10))
        seen[split] = {ink.tobytes() for ink in drawn}
        assert len(drawn) >= 10 * DIGITS[0]
        bank = {ink.tobytes() for ink in load_digit_bank(split).ink}
        assert seen[split] <= bank
    assert not seen['train'] & seen['test']
