import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmssm.datasets.mini.digits import load_digit_bank


def test_splits_share_no_digit_and_cover_all():
    train, test = load_digit_bank('train'), load_digit_bank('test')
    assert not set(train.indices) & set(test.indices)
    assert len(train) + len(test) == len(load_digits().target)


def test_split_falls_on_a_new_writers_form():
    # Every form begins with the ten digits three times over.
    test = load_digit_bank('test')
    assert test.labels[:30].tolist() == 3 * list(range(10))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_bank_holds_the_real_digits(split):
    bank, source = load_digit_bank(split), load_digits()
    assert bank.ink.dtype == np.float32
    assert bank.ink.min() == 0 and bank.ink.max() == 1
    np.testing.assert_array_equal(bank.ink * 16, source.images[bank.indices])
    np.testing.assert_array_equal(bank.labels, source.target[bank.indices])
    assert set(bank.labels) == set(range(10))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'val'"):
        load_digit_bank('val')
