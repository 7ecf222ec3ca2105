"""The real handwritten digits that every mini dataset is drawn from.

scikit-learn bundles 1,797 digits of 8x8 pixels, the test partition of the UCI
"Optical Recognition of Handwritten Digits" set. It does not name writers, but
they can be told from the labels: each person copied the same printed form of
about 130 digits, so each form starts with the labels ``0123456789`` three
times. The digits are split where a form starts: the forms before are for
training, the last three for testing.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

from mmssm.utils import UserError

SPLITS = ('train', 'test')
CLASSES = tuple('0123456789')

# The first digit of the twelfth of fourteen forms.
FIRST_TEST_DIGIT = 1415
MAX_INK = 16


@dataclass(frozen=True)
class DigitBank:
    """The digits of one split.

    Attributes:
        ink (np.ndarray): (N, 8, 8) float32, 0 for blank paper, 1 for full ink.
        labels (np.ndarray): (N,) int64, the digit that was written.
        indices (np.ndarray): (N,) int64, each digit's position in
            scikit-learn's set.
    """

    ink: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load_digit_bank(split: str) -> DigitBank:
    """Load the digits of one split.

    Args:
        split (str): ``'train'`` (1,415 digits) or ``'test'`` (382 digits by
            other writers).

    Raises:
        UserError: If the split is unknown.
    """
    if split not in SPLITS:
        raise UserError(f'unknown split {split!r}: choose one of {SPLITS}')
    digits = load_digits()
    indices = np.arange(len(digits.target))
    if split == 'train':
        indices = indices[:FIRST_TEST_DIGIT]
    else:
        indices = indices[FIRST_TEST_DIGIT:]
    return DigitBank(
        ink=(digits.images[indices] / MAX_INK).astype(np.float32),
        labels=digits.target[indices].astype(np.int64),
        indices=indices,
    )
