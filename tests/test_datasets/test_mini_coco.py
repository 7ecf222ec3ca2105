import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from mmssm.datasets.mini.coco import mask_to_polygons, write_coco
from mmssm.datasets.mini.digits import CLASSES, load_digit_bank
from mmssm.datasets.mini.scenes import DIGITS, draw_scene

FEW = dict(train=12, test=6)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('coco')
    write_coco(folder, FEW)
    return folder


def decode(polygons, shape):
    parts = mask_utils.frPyObjects(polygons, *shape)
    return mask_utils.decode(mask_utils.merge(parts)).astype(bool)


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_drawing_twice_gives_the_same_bytes(root, tmp_path):
    write_coco(tmp_path, FEW)
    first, second = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob('*')
            if path.is_file()
        }
        for folder in (root, tmp_path)
    )
    assert first == second
    assert len(first) == 12 + 6 + 2


@pytest.mark.parametrize('split', ['train', 'test'])
def test_annotations_are_valid_coco(root, split, capsys):
    coco = COCO(str(root / 'annotations' / f'{split}.json'))
    assert len(coco.imgs) == FEW[split]
    assert [category['name'] for category in coco.cats.values()] == [*CLASSES]
    for image_id, image in coco.imgs.items():
        assert (root / split / image['file_name']).is_file()
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.shape == (image['height'], image['width'])
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == pytest.approx(mask.sum(), rel=0.05)
            left, top, width, height = annotation['bbox']
            rows, columns = np.nonzero(mask)
            assert abs(columns.min() - left) <= 1
            assert abs(rows.min() - top) <= 1
            assert abs(columns.max() + 1 - left - width) <= 1
            assert abs(rows.max() + 1 - top - height) <= 1


def test_scenes_of_the_splits_share_no_digit(root):
    banks = {split: load_digit_bank(split) for split in FEW}
    drawn = {}
    for split, bank in banks.items():
        data = json.loads((root / 'annotations' / f'{split}.json').read_text())
        drawn[split] = {entry['digit'] for entry in data['annotations']}
        assert drawn[split] <= set(bank.indices.tolist())
        label_of = dict(zip(bank.indices.tolist(), bank.labels.tolist()))
        for entry in data['annotations']:
            assert entry['category_id'] == label_of[entry['digit']] + 1
    assert not drawn['train'] & drawn['test']


def test_polygons_match_the_drawn_masks():
    bank = load_digit_bank('train')
    seen = 0
    for number in range(30):
        scene = draw_scene(np.random.default_rng(number), bank)
        for instance in scene.instances:
            polygons = mask_to_polygons(instance.mask)
            decoded = decode(polygons, instance.mask.shape)
            assert iou(decoded, instance.mask) > 0.97
            seen += 1
    assert seen > 60


def test_polygon_keeps_holes_and_parts():
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 5:30] = True
    mask[8:14, 8:14] = False
    mask[18:26, 16:24] = False
    mask[10:20, 40:50] = True
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    assert iou(decode(polygons, mask.shape), mask) > 0.97


def test_scene_has_several_digits_and_masks_do_not_overlap():
    bank = load_digit_bank('test')
    digits = 0
    for number in range(30):
        scene = draw_scene(np.random.default_rng(number), bank)
        masks = np.array([instance.mask for instance in scene.instances])
        assert masks.sum(0).max() <= 1
        assert masks.sum((1, 2)).min() > 60
        assert len(masks) <= DIGITS[1]
        digits += len(masks)
    assert digits >= DIGITS[0] * 30


def test_digit_stands_out_from_the_ground():
    scene = draw_scene(np.random.default_rng(0), load_digit_bank('train'))
    gray = cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY).astype(float)
    ground = ~np.any([instance.mask for instance in scene.instances], axis=0)
    for instance in scene.instances:
        difference = np.median(gray[ground]) - np.median(gray[instance.mask])
        assert difference > 60
