from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmssm.models import InstanceSegTTAModel
from mmssm.models.instance_tta import fuse_instances

ROOT = Path(__file__).parents[2]
SIZE = 20
TTA_CFG = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)


def box_mask(left, top, right, bottom, value=True):
    dtype = torch.bool if value is True else torch.uint8
    mask = torch.zeros(SIZE, SIZE, dtype=dtype)
    mask[top:bottom, left:right] = value
    return mask


def instances(*found, value=True):
    """Each one as (box, score, label), with its box as the mask."""
    boxes = [f[0] for f in found]
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([f[1] for f in found], dtype=torch.float32),
        labels=torch.tensor([f[2] for f in found], dtype=torch.long),
        masks=torch.stack([box_mask(*box, value) for box in boxes])
        if boxes
        else box_mask(0, 0, 0, 0, value).new_zeros(0, SIZE, SIZE),
    )


def fuse(*views, max_per_img=10):
    return fuse_instances(views, 0.5, max_per_img)


def test_one_instance_seen_twice():
    fused = fuse(
        instances(((2, 2, 10, 10), 0.9, 3)),
        instances(((3, 2, 11, 10), 0.3, 3)),
    )
    assert len(fused) == 1
    expected = torch.tensor([[2.25, 2.0, 10.25, 10.0]])
    assert torch.allclose(fused.bboxes, expected)
    assert fused.scores.item() == pytest.approx(0.6)
    assert fused.labels.tolist() == [3]
    # Three quarters of the weight is the first one's.
    assert torch.equal(fused.masks[0], box_mask(2, 2, 10, 10))


def test_probabilities_are_averaged_before_the_threshold():
    fused = fuse(
        instances(((2, 2, 10, 10), 0.5, 0), value=140),  # 0.55
        instances(((2, 2, 10, 12), 0.5, 0), value=250),
    )
    # Where one view alone sees something, 250 / 2 is below the half.
    assert torch.equal(fused.masks[0], box_mask(2, 2, 10, 10))
    assert fused.masks.dtype == torch.bool


def test_classes_are_kept_apart():
    fused = fuse(
        instances(((2, 2, 10, 10), 0.9, 0)),
        instances(((2, 2, 10, 10), 0.8, 1)),
    )
    assert fused.labels.tolist() == [0, 1]
    assert torch.allclose(fused.scores, torch.tensor([0.45, 0.4]))


def test_what_several_views_see_counts_more():
    lonely = ((12, 12, 18, 18), 0.9, 0)
    common = ((2, 2, 10, 10), 0.6, 0)
    fused = fuse(instances(lonely, common), instances(common))
    assert torch.allclose(fused.scores, torch.tensor([0.6, 0.45]))
    assert torch.equal(fused.masks[0], box_mask(2, 2, 10, 10))
    assert len(fuse(instances(lonely, common), max_per_img=1)) == 1


def test_a_view_votes_once():
    """Two boxes of one view on one thing give its score once."""
    fused = fuse(
        instances(((2, 2, 10, 10), 0.8, 0), ((2, 2, 10, 11), 0.6, 0)),
        instances(),
    )
    assert torch.allclose(fused.scores, torch.tensor([0.4]))


def test_one_view_alone_stays_as_it_is():
    view = instances(((2, 2, 10, 10), 0.9, 0), ((5, 12, 9, 18), 0.4, 2))
    fused = fuse(view)
    for field in ('bboxes', 'scores', 'labels', 'masks'):
        assert torch.allclose(
            fused[field].float(), view[field].float(), atol=1e-6
        )


def test_a_box_without_an_area_stays_alone():
    """It overlaps nothing, not even itself."""
    thing = ((0, 0, 4, 4), 0.9, 0)
    fused = fuse(instances(thing, ((8, 2, 8, 6), 0.8, 0)), instances(thing))
    assert fused.bboxes.tolist() == [[0, 0, 4, 4], [8, 2, 8, 6]]
    assert torch.allclose(fused.scores, torch.tensor([0.9, 0.4]))
    assert not fused.masks[1].any()


def test_scores_of_zero():
    fused = fuse(instances(((2, 2, 10, 10), 0.0, 0)))
    assert fused.bboxes.tolist() == [[2, 2, 10, 10]]
    assert torch.equal(fused.masks[0], box_mask(2, 2, 10, 10))


@pytest.mark.parametrize('value', [True, 200])
def test_nothing_found(value):
    fused = fuse(instances(value=value), instances(value=value))
    assert len(fused) == 0
    assert fused.masks.shape == (0, SIZE, SIZE)
    assert fused.masks.dtype == torch.bool


class Detector(nn.Module):
    """Finds in each view what the view's data say."""

    def test_step(self, data):
        return data['data_samples']


def view(found, flip=None):
    metainfo = dict(ori_shape=(SIZE, SIZE), flip=flip is not None)
    sample = DetDataSample(metainfo=dict(metainfo, flip_direction=flip))
    sample.pred_instances = found
    return sample


@pytest.mark.parametrize(
    ('direction', 'flipped'),
    [
        ('horizontal', (12, 3, 18, 10)),
        ('vertical', (2, 10, 8, 17)),
        ('diagonal', (12, 10, 18, 17)),
    ],
)
def test_flipped_views_are_turned_back(direction, flipped):
    box = (2, 3, 8, 10)
    model = InstanceSegTTAModel(tta_cfg=TTA_CFG, module=Detector())
    views = [
        [view(instances((box, 0.8, 1)))],
        [view(instances((flipped, 0.8, 1)), direction)],
    ]
    data = dict(inputs=[None, None], data_samples=views)
    (merged,) = model.test_step(data)
    assert merged.pred_instances.bboxes.tolist() == [list(box)]
    assert merged.pred_instances.scores.tolist() == pytest.approx([0.8])
    assert torch.equal(merged.pred_instances.masks[0], box_mask(*box))


def test_boxes_alone_are_merged_as_mmdet_does():
    model = InstanceSegTTAModel(tta_cfg=TTA_CFG, module=Detector())
    views = []
    for score in (0.9, 0.5):
        found = instances(((2, 2, 10, 10), score, 0))
        del found.masks
        views.append([view(found)])
    data = dict(inputs=[None, None], data_samples=views)
    (merged,) = model.test_step(data)
    assert merged.pred_instances.scores.tolist() == pytest.approx([0.9])
    assert 'masks' not in merged.pred_instances


@pytest.mark.parametrize(
    ('tta_cfg', 'message'),
    [
        (dict(max_per_img=10), 'tta_cfg has nms={}'),
        (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), 'soft_nms'),
        (dict(nms=TTA_CFG['nms']), 'max_per_img=None'),
        (dict(nms=TTA_CFG['nms'], max_per_img=0), 'max_per_img=0'),
        (dict(nms=TTA_CFG['nms'], max_per_img=-1), 'max_per_img=-1'),
    ],
)
def test_bad_settings(tta_cfg, message):
    with pytest.raises(ValueError, match=message):
        InstanceSegTTAModel(tta_cfg=tta_cfg, module=Detector())


@pytest.fixture(scope='module')
def mask_rcnn():
    """A small detector with random weights, as a config's ``model``."""
    cfg = Config.fromfile(
        ROOT / 'configs/mini/mask-rcnn_vmamba-mini_mini-coco.py'
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model).eval()


def batch(image):
    metainfo = dict(
        ori_shape=(160, 160),
        img_shape=image.shape[1:],
        scale_factor=(image.shape[2] / 160, image.shape[1] / 160),
        flip=False,
        flip_direction=None,
    )
    return [image], [DetDataSample(metainfo=metainfo)]


def in_views(model, *images):
    views = [batch(image) for image in images]
    data = dict(
        inputs=[inputs for inputs, _ in views],
        data_samples=[samples for _, samples in views],
    )
    with torch.no_grad():
        return model.test_step(data)[0].pred_instances


def test_one_view_of_a_detector_gives_what_it_gives_alone(mask_rcnn):
    image = torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8)
    inputs, samples = batch(image)
    with torch.no_grad():
        alone = mask_rcnn.test_step(dict(inputs=inputs, data_samples=samples))[
            0
        ].pred_instances
    assert len(alone) > 3
    model = InstanceSegTTAModel(
        tta_cfg=dict(TTA_CFG, max_per_img=100), module=deepcopy(mask_rcnn)
    )
    fused = in_views(model, image)
    assert torch.allclose(fused.bboxes, alone.bboxes, atol=1e-3)
    assert torch.allclose(fused.scores, alone.scores)
    assert fused.masks.dtype == torch.bool
    # Probabilities come in steps of 1/255, so pixels at the threshold differ.
    assert (fused.masks != alone.masks).float().mean() < 0.01


def test_enlarged_views_give_boxes_and_masks_of_the_image(mask_rcnn):
    """What a view of twice the size shows lies where the image has it."""
    image = torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8)
    large = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    model = InstanceSegTTAModel(tta_cfg=TTA_CFG, module=deepcopy(mask_rcnn))
    inputs, samples = batch(large)
    with torch.no_grad():
        alone = mask_rcnn.test_step(dict(inputs=inputs, data_samples=samples))[
            0
        ].pred_instances[: TTA_CFG['max_per_img']]
    found = in_views(model, large)
    assert torch.allclose(found.bboxes, alone.bboxes, atol=1e-3)
    assert found.bboxes.max() <= 160
    assert found.masks.shape[1:] == (160, 160)
    assert (found.masks != alone.masks).float().mean() < 0.01


def test_views_of_other_sizes(mask_rcnn):
    model = InstanceSegTTAModel(tta_cfg=TTA_CFG, module=deepcopy(mask_rcnn))
    assert model.mask_threshold == 0.5
    found = in_views(
        model,
        torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8),
        torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8),
    )
    assert 0 < len(found) <= TTA_CFG['max_per_img']
    assert found.masks.shape[1:] == (160, 160)
    assert found.masks.dtype == torch.bool
    assert (found.scores.diff() <= 0).all()
