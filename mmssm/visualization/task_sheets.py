"""A sheet of pictures for each task: the truth and the predictions.

The pictures are those of inference; :mod:`mmssm.visualization.sheets` arranges
them.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

from .palette import Classes
from .pictures import (
    draw_detections,
    draw_segmentation,
    scale_image,
    shorten,
)
from .sheets import (
    THUMBNAIL,
    TILE,
    TITLES,
    Thumbnail,
    add_legend,
    caption_font,
    tile_groups,
    tile_thumbnails,
)

RIGHT, WRONG, BLACK = (0, 128, 0), (200, 0, 0), (0, 0, 0)
CHANGE_TITLES = ('before', 'after', 'ground truth', 'prediction')
# Colors in change maps, as in papers about change detection.
UNCHANGED, CHANGED, IGNORED = (0, 0, 0), (255, 255, 255), (128, 128, 128)
FALSE_ALARM, MISSED = (230, 50, 40), (50, 130, 255)

# Images, (H, W, 3) uint8, red-green-blue, or for a change detector pairs,
# (H, W, 6), each with the model's sample.
Results = Iterable[tuple[np.ndarray, BaseDataElement]]


def detection_sheet(
    results: Results, classes: Classes, score_thr: float
) -> Image.Image:
    """Draw the true and the found instances side by side.

    Args:
        results (Results): Samples with ``gt_instances`` and
            ``pred_instances``.
        classes (Classes): Names and colors by label.
        score_thr (float): Detections with a lower score are left out.
    """
    pairs = []
    for image, sample in results:
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        found = found[found.scores.argsort(descending=True)]
        pairs.append(
            tuple(
                _draw_instances(image, instances, classes)
                for instances in (sample.gt_instances, found)
            )
        )
    return tile_groups(pairs)


def instance_sheet(results: Results, classes: Classes) -> Image.Image:
    """Draw the true instances alone.

    Args:
        results (Results): Samples with ``gt_instances``.
        classes (Classes): Names and colors by label.
    """
    pictures = [
        (_draw_instances(image, sample.gt_instances, classes),)
        for image, sample in results
    ]
    return tile_groups(pictures, TITLES[:1])


def _draw_instances(
    image: np.ndarray, instances: InstanceData, classes: Classes
) -> Image.Image:
    labels = instances.labels.tolist()
    # mmdet may wrap the true boxes in a type of its own.
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).tolist()
    rows = [
        dict(name=classes.names[label], bbox=box)
        for label, box in zip(labels, boxes)
    ]
    for row, score in zip(rows, instances.get('scores', [])):
        row['score'] = float(score)
    masks = instances.get('masks')
    if masks is not None and not isinstance(masks, torch.Tensor):
        masks = masks.to_ndarray()  # mmdet's type for true masks
    return draw_detections(
        image,
        rows,
        [classes.palette[label] for label in labels],
        None if masks is None else np.asarray(masks, dtype=bool),
        TILE,
    )


def label_map_sheet(
    results: Results, classes: Classes, with_prediction: bool = True
) -> Image.Image:
    """Draw true and predicted labels over images, with a legend.

    Args:
        results (Results): Samples with ``gt_sem_seg`` and, if it is drawn,
            ``pred_sem_seg``.
        classes (Classes): Names and colors by label. Pixels with other
            labels are ignored and not changed.
        with_prediction (bool): Whether to draw the predicted labels. Defaults
            to True.
    """
    fields = ('gt_sem_seg', 'pred_sem_seg')[: 1 + with_prediction]
    pairs, occurring = [], set()
    for image, sample in results:
        sides = []
        for field in fields:
            labels = sample.get(field).data.squeeze(0).numpy()
            occurring.update(np.unique(labels).tolist())
            sides.append(
                draw_segmentation(image, labels, classes.palette, TILE)
            )
        pairs.append(tuple(sides))
    colors = {
        name: color
        for label, (name, color) in enumerate(
            zip(classes.names, classes.palette)
        )
        if label in occurring
    }
    return add_legend(tile_groups(pairs, TITLES[: len(fields)]), colors)


def change_sheet(
    results: Results, ignore_index: int = 255, with_prediction: bool = True
) -> Image.Image:
    """Draw pairs of images, what changed, and the prediction with its errors.

    Args:
        results (Results): Pairs, and samples with ``gt_sem_seg`` and, if it
            is drawn, ``pred_sem_seg`` of the pair's size, 0 where nothing
            changed.
        ignore_index (int): The label of ignored pixels in the truth.
            Defaults to 255.
        with_prediction (bool): Whether to draw the prediction. Defaults to
            True.
    """
    fields = ('gt_sem_seg', 'pred_sem_seg')[: 1 + with_prediction]
    groups, legend = [], dict(changed=CHANGED, unchanged=UNCHANGED)
    if with_prediction:
        legend |= {'false alarm': FALSE_ALARM, 'missed': MISSED}
    for pair, sample in results:
        maps = [sample.get(field).data.squeeze(0).numpy() for field in fields]
        ignored, truth, found = (
            maps[0] == ignore_index,
            maps[0] != 0,
            maps[-1] != 0,
        )
        if ignored.any():
            legend['ignored'] = IGNORED
        true_map, found_map = (
            np.where(changed[..., None], CHANGED, UNCHANGED).astype(np.uint8)
            for changed in (truth, found)
        )
        found_map[found & ~truth] = FALSE_ALARM
        found_map[truth & ~found] = MISSED
        true_map[ignored] = found_map[ignored] = IGNORED
        shown = (true_map, found_map)[: len(fields)]
        images = [
            scale_image(np.ascontiguousarray(image), TILE)[0]
            for image in (pair[..., :3], pair[..., 3:])
        ]
        size = images[0].shape[1::-1]
        images += [
            # Colors of a map cannot be interpolated.
            cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
            for picture in shown
        ]
        groups.append(tuple(map(Image.fromarray, images)))
    titles = CHANGE_TITLES[: 2 + len(fields)]
    return add_legend(tile_groups(groups, titles), legend)


def class_sheet(results: Results, names: Sequence[str] | None) -> Image.Image:
    """Draw thumbnails with the predicted class below each.

    Args:
        results (Results): Samples with ``gt_label`` and ``pred_score``.
        names (Sequence[str] | None): Names by label. Without them, numbers
            are written.
    """
    thumbnails = []
    for image, sample in results:
        scores = sample.pred_score
        best = int(scores.argmax())
        truth = sample.gt_label.tolist()  # Some images have several.
        # Two spaces separate the score from a class name that is a number.
        caption = (f'{_class_name(names, best)}  {100 * scores[best]:.0f} %',)
        if best not in truth:
            others = ' / '.join(_class_name(names, label) for label in truth)
            caption += (f'true {others}',)
        picture, _ = scale_image(image, THUMBNAIL)
        thumbnails.append(
            Thumbnail(
                Image.fromarray(picture),
                caption,
                RIGHT if best in truth else WRONG,
            )
        )
    right = sum(thumbnail.color == RIGHT for thumbnail in thumbnails)
    return tile_thumbnails(
        thumbnails, f'{right} of {len(thumbnails)} test images right'
    )


def true_class_sheet(
    results: Results, names: Sequence[str] | None
) -> Image.Image:
    """Draw thumbnails with the true class below each.

    Args:
        results (Results): Samples with ``gt_label``.
        names (Sequence[str] | None): Names by label. Without them, numbers
            are written.
    """
    thumbnails = []
    for image, sample in results:
        picture, _ = scale_image(image, THUMBNAIL)
        labels = sample.gt_label.tolist()
        caption = ' / '.join(_class_name(names, label) for label in labels)
        thumbnails.append(
            Thumbnail(Image.fromarray(picture), (caption,), BLACK)
        )
    return tile_thumbnails(thumbnails, TITLES[0])


def _class_name(names: Sequence[str] | None, label: int) -> str:
    if names is None:
        return str(label)
    font = caption_font()
    # Leave room for the score. ImageNet's names are lists of synonyms.
    space = THUMBNAIL - font.getlength('  100 %')
    return shorten(names[label].split(',')[0], space, font)
