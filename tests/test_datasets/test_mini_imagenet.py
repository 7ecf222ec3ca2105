import cv2
import numpy as np
import pytest

from mmssm.datasets.mini.digits import CLASSES, load_digit_bank
from mmssm.datasets.mini.imagenet import FOLDERS, write_imagenet
from mmssm.datasets.mini.scenes import PORTRAIT_SIZE

ONCE = dict(train=1, test=2)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('imagenet')
    write_imagenet(folder, ONCE)
    return folder


@pytest.mark.parametrize('split', ONCE)
def test_each_digit_is_in_the_folder_of_its_class(root, split):
    bank = load_digit_bank(split)
    folders = sorted((root / FOLDERS[split]).iterdir())
    assert [folder.name for folder in folders] == list(CLASSES)
    found = {
        (int(path.stem.split('_')[0]), int(folder.name))
        for folder in folders
        for path in folder.iterdir()
    }
    assert found == set(zip(bank.indices.tolist(), bank.labels.tolist()))
    files = list((root / FOLDERS[split]).rglob('*.jpg'))
    assert len(files) == ONCE[split] * len(bank)


def test_no_digit_is_in_both_splits(root):
    stems = {
        split: {p.stem.split('_')[0] for p in (root / folder).rglob('*.jpg')}
        for split, folder in FOLDERS.items()
    }
    assert not stems['train'] & stems['test']


def test_dark_ink_on_light_paper(root):
    for path in sorted(root.rglob('*.jpg'))[::50]:
        image = cv2.imread(str(path))
        assert image.shape == (PORTRAIT_SIZE, PORTRAIT_SIZE, 3)
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        ink = (gray < 110).mean()
        assert 0.02 < ink < 0.5
        assert np.median(gray[gray >= 110]) > 140


def test_a_digit_drawn_twice_looks_different(root):
    first, second = (
        cv2.imread(str(path))
        for path in sorted((root / 'val' / '3').iterdir())[:2]
    )
    assert np.abs(first.astype(int) - second).mean() > 5
