"""Test-time augmentation of instance segmentation."""

from collections.abc import Sequence

import torch
from mmcv.ops import batched_nms
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip, bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmssm.utils import UserError
from mmssm.utils.config import type_name

_FLIPPED_AXES = dict(horizontal=[-1], vertical=[-2], diagonal=[-2, -1])
_SOFT_MAX = 255  # probability 1 in the 8-bit output of a mask head
_LEAST_SCORE = 1e-6


@MODELS.register_module()
class InstanceSegTTAModel(DetTTAModel):
    """Merge the boxes and masks that a detector finds in several views.

    mmdet's ``DetTTAModel`` merges boxes only. Here, overlapping detections of
    one class form one instance, whose box and mask are the means of theirs,
    weighted by the scores (see :func:`fuse_instances`). The mask head is set
    to give probabilities instead of thresholded masks, so that the mean is
    taken before the threshold. Detections without masks are merged as in
    ``DetTTAModel``.

    Args:
        tta_cfg (dict): ``nms``, of type ``'nms'`` with an ``iou_threshold``,
            and ``max_per_img``, the number of instances to keep per image.
        module (dict or nn.Module): The detector. It is changed: its mask head
            gives probabilities from then on.
        data_preprocessor (dict, optional): Replaces that of ``module``, if
            ``module`` is a dict.

    Raises:
        UserError: A field of ``tta_cfg`` is missing, or its NMS is another.
    """

    def __init__(
        self,
        tta_cfg: dict,
        module: dict | nn.Module,
        data_preprocessor: dict | None = None,
    ) -> None:
        _check(tta_cfg)
        super().__init__(
            tta_cfg=ConfigDict(tta_cfg),
            module=module,
            data_preprocessor=data_preprocessor,
        )
        self.mask_threshold = 0.5
        head = getattr(self.module, 'roi_head', None)
        config = getattr(head, 'test_cfg', None) or {}
        if config.get('mask_thr_binary', -1) >= 0:
            self.mask_threshold = config['mask_thr_binary']
            # A negative value makes mask heads give 8-bit probabilities.
            head.test_cfg = ConfigDict(config, mask_thr_binary=-1)

    def _merge_single_sample(
        self, data_samples: Sequence[DetDataSample]
    ) -> DetDataSample:
        merged = data_samples[0]
        if 'masks' not in merged.pred_instances:
            return super()._merge_single_sample(data_samples)
        merged.pred_instances = fuse_instances(
            [_unflipped(sample) for sample in data_samples],
            iou_threshold=self.tta_cfg.nms.iou_threshold,
            max_per_img=self.tta_cfg.max_per_img,
            mask_threshold=self.mask_threshold,
        )
        return merged


def fuse_instances(
    views: Sequence[InstanceData],
    iou_threshold: float,
    max_per_img: int,
    mask_threshold: float = 0.5,
) -> InstanceData:
    """Merge the detections in several views of one image.

    NMS selects a leader for each instance; every other detection joins the
    leader of its class that it overlaps most. Boxes and masks that belong
    together are averaged with the scores as weights. The score of an instance
    is the mean of the views' best scores, 0 for a view without a detection (as
    in weighted boxes fusion, https://arxiv.org/abs/1910.13302).

    Args:
        views (Sequence[InstanceData]): In the image's coordinates:
            ``bboxes`` (n, 4), ``scores`` (n,), ``labels`` (n,) and ``masks``
            (n, H, W), bool or probabilities from 0 to 255 as uint8.
        iou_threshold (float): Least overlap of two boxes of one instance.
        max_per_img (int): How many instances to keep, the best ones.
        mask_threshold (float): Least probability of a pixel of a mask.

    Returns:
        InstanceData: The same fields, with bool masks, best score first.
    """
    found = InstanceData.cat(list(views))
    if not len(found):
        return _with_masks(found, found.masks.bool())
    _, leaders = batched_nms(
        found.bboxes,
        found.scores,
        found.labels,
        dict(type='nms', iou_threshold=iou_threshold),
    )
    overlaps = bbox_overlaps(found.bboxes[leaders], found.bboxes)
    overlaps[found.labels[leaders][:, None] != found.labels] = -1
    # A box without an area does not overlap even itself.
    overlaps[torch.arange(len(leaders)), leaders] = 2
    group = overlaps.argmax(0)  # (n,): index of the leader

    votes = found.scores.new_zeros(len(leaders), len(views))
    view = torch.repeat_interleave(
        torch.arange(len(views)), torch.tensor([len(v) for v in views])
    ).to(group)
    votes.view(-1).scatter_reduce_(
        0, group * len(views) + view, found.scores, 'amax'
    )
    scores, kept = votes.mean(1).sort(descending=True, stable=True)
    scores, kept = scores[:max_per_img], kept[:max_per_img]

    shares = _shares(group, found.scores, kept)
    fused = InstanceData(
        bboxes=shares @ found.bboxes,
        scores=scores,
        labels=found.labels[leaders][kept],
    )
    return _with_masks(fused, _fuse_masks(found.masks, shares, mask_threshold))


def _shares(group: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
    """Weights (k, n) of the detections in the mean of each instance."""
    # The minimum keeps the sum above 0 if all scores are 0.
    weights = (group == kept[:, None]) * scores.clamp(min=_LEAST_SCORE)
    return weights / weights.sum(1, keepdim=True)


def _fuse_masks(masks: Tensor, shares: Tensor, threshold: float) -> Tensor:
    """Average masks with weights and apply a threshold: (k, H, W) bool.

    One instance at a time: all masks as floats would take gigabytes.
    """
    scale = _SOFT_MAX if masks.dtype == torch.uint8 else 1.0
    fused = masks.new_empty((len(shares), *masks.shape[1:]), dtype=torch.bool)
    for share, result in zip(shares, fused):
        mean = torch.zeros(masks.shape[1:], device=masks.device)
        for member in share.nonzero()[:, 0]:
            mean.add_(masks[member] * share[member])
        torch.ge(mean, threshold * scale, out=result)
    return fused


def _unflipped(sample: DetDataSample) -> InstanceData:
    """A view's predictions, flipped back if the view was flipped."""
    found = sample.pred_instances
    if not sample.metainfo.get('flip'):
        return found
    direction = sample.metainfo['flip_direction']
    turned = InstanceData(
        bboxes=bbox_flip(found.bboxes, sample.ori_shape, direction),
        scores=found.scores,
        labels=found.labels,
    )
    return _with_masks(turned, found.masks.flip(_FLIPPED_AXES[direction]))


def _with_masks(found: InstanceData, masks: Tensor) -> InstanceData:
    """The same instances with other masks."""
    return InstanceData(
        bboxes=found.bboxes,
        scores=found.scores,
        labels=found.labels,
        masks=masks,
    )


def _check(tta_cfg: dict) -> None:
    nms = tta_cfg.get('nms') or {}
    if type_name(nms.get('type')) != 'nms' or 'iou_threshold' not in nms:
        raise UserError(
            f'tta_cfg has nms={nms}, but nms=dict(type="nms", iou_threshold='
            '...) is needed'
        )
    if tta_cfg.get('max_per_img', 0) < 1:
        raise UserError(
            f'tta_cfg has max_per_img={tta_cfg.get("max_per_img")}, but the '
            'number of instances to keep of an image is needed'
        )
