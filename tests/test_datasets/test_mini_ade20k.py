import cv2
import numpy as np
import pytest

from mmssm.datasets.mini.ade20k import label_map, write_ade20k
from mmssm.datasets.mini.scenes import draw_scenes

FEW = dict(train=5, test=3)
FOLDERS = dict(train='training', test='validation')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ade20k')
    write_ade20k(folder, FEW)
    return folder


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize('split', FEW)
def test_every_image_has_its_labels(root, split):
    names = [f'{number:04d}' for number in range(FEW[split])]
    images = sorted((root / 'images' / FOLDERS[split]).iterdir())
    labels = sorted((root / 'annotations' / FOLDERS[split]).iterdir())
    assert [path.name for path in images] == [f'{n}.jpg' for n in names]
    assert [path.name for path in labels] == [f'{n}.png' for n in names]
    for image, label in zip(images, labels):
        assert read(image).shape == (160, 160, 3)
        assert read(label).shape == (160, 160)
        assert read(label).dtype == np.uint8


def test_labels_are_the_scenes_digits(root):
    for number, scene in enumerate(draw_scenes('train', FEW['train'])):
        labels = read(root / 'annotations/training' / f'{number:04d}.png')
        assert np.array_equal(labels, label_map(scene))
        inked = np.zeros(labels.shape, dtype=bool)
        for instance in scene.instances:
            assert (labels[instance.mask] == 2 + instance.label).all()
            inked |= instance.mask
        assert (labels[~inked] == 1).all()
        assert inked.any() and not inked.all()


def test_a_digit_laid_over_another_hides_it():
    for scene in draw_scenes('train', 40):
        total = sum(int(instance.mask.sum()) for instance in scene.instances)
        assert (label_map(scene) > 1).sum() == total
