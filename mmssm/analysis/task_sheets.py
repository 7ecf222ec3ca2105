"""A sheet of pictures for each task: the truth and what a model predicts.

How pictures are arranged lies in :mod:`sheets`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

from .sheets import (
    THUMBNAIL,
    TILE,
    Color,
    Thumbnail,
    add_legend,
    fit,
    tile_pairs,
    tile_thumbnails,
)

# mmdet's labels have a fixed size in points: the more dots per inch, the
# larger they are in a tile.
LABEL_DPI = 150
LABEL_OPACITY = 0.6  # of a class's colour on a pixel
RIGHT, WRONG = (0, 128, 0), (200, 0, 0)
NAME_LENGTH = 16  # letters of a class in a caption

# Images, uint8, (H, W, 3) red-green-blue or (H, W) grey, with the model's
# samples.
Results = Iterable[tuple[np.ndarray, BaseDataElement]]


def draw_detections(
    results: Results, meta: dict, score_thr: float
) -> Image.Image:
    """Draw the true and the found instances side by side.

    To be called in mmdet's scope.

    Args:
        results (Results): Samples with ``gt_instances`` and
            ``pred_instances``.
        meta (dict): The dataset's ``classes`` and ``palette``.
        score_thr (float): Detections that score less are left out.
    """
    visualizer = VISUALIZERS.build(
        dict(
            type='DetLocalVisualizer',
            name='draw_predictions',
            line_width=1.5,
            alpha=0.5,
        )
    )
    visualizer.dataset_meta = meta
    visualizer.fig_save.set_dpi(LABEL_DPI)
    visualizer.dpi = LABEL_DPI
    pairs = []
    for image, sample in results:
        scale = TILE / max(image.shape[:2])
        image = np.array(fit(image, TILE))
        sides = []
        for draw_gt in (True, False):
            instances = (
                sample.gt_instances if draw_gt else sample.pred_instances
            )
            _enlarge(instances, image.shape[:2], scale)
            with _fixed_randomness():
                visualizer.add_datasample(
                    'predictions',
                    image,
                    sample,
                    draw_gt=draw_gt,
                    draw_pred=not draw_gt,
                    pred_score_thr=score_thr,
                )
            sides.append(Image.fromarray(visualizer.get_image()))
        pairs.append(tuple(sides))
    return tile_pairs(pairs)


@contextmanager
def _fixed_randomness() -> Iterator[None]:
    """Let mmdet vary the colours of masks in the same way each time."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _enlarge(
    instances: InstanceData, shape: tuple[int, int], scale: float
) -> None:
    """Bring boxes and masks to the size of the drawn image."""
    instances.bboxes = torch.as_tensor(instances.bboxes) * scale
    if 'masks' not in instances:
        return
    masks = instances.masks
    if not isinstance(masks, torch.Tensor):  # mmdet's ground truth
        masks = torch.from_numpy(masks.to_ndarray())
    if len(masks):
        # Interpolation keeps enlarged outlines smooth.
        masks = (
            torch.nn.functional.interpolate(
                masks[None].float(), size=shape, mode='bilinear'
            )[0]
            > 0.5
        )
    else:
        masks = torch.zeros((0, *shape), dtype=torch.bool)
    # Setting the field anew is the only way to change the masks' shape.
    del instances.masks
    instances.masks = masks


def draw_label_maps(results: Results, meta: dict) -> Image.Image:
    """Lay true and predicted labels over images, with the classes' legend.

    Args:
        results (Results): Samples with ``gt_sem_seg`` and ``pred_sem_seg``.
        meta (dict): The dataset's ``classes`` and ``palette``. Other labels
            are those of ignored pixels, which stay as they are.
    """
    palette = np.array(meta['palette'], dtype=np.uint8)
    pairs, occurring = [], set()
    for image, sample in results:
        picture = fit(image, TILE)
        sides = []
        for field in ('gt_sem_seg', 'pred_sem_seg'):
            labels = sample.get(field).data.squeeze(0).numpy()
            occurring.update(np.unique(labels[labels < len(palette)]).tolist())
            sides.append(_overlay(picture, labels, palette))
        pairs.append(tuple(sides))
    colors: dict[str, Color] = {
        meta['classes'][label]: tuple(palette[label].tolist())
        for label in sorted(occurring)
    }
    return add_legend(tile_pairs(pairs), colors)


def _overlay(
    picture: Image.Image, labels: np.ndarray, palette: np.ndarray
) -> Image.Image:
    """Lay the classes' colours over a picture's grey."""
    # The nearest label, since there is nothing between two classes.
    labels = np.array(
        Image.fromarray(labels.astype(np.int32)).resize(
            picture.size, Image.Resampling.NEAREST
        )
    )
    pixels = np.array(picture)
    known = labels < len(palette)
    # Colours of the image's own would pass for those of other classes.
    grey = np.array(picture.convert('L'))[known, None]
    pixels[known] = np.round(
        (1 - LABEL_OPACITY) * grey + LABEL_OPACITY * palette[labels[known]]
    )
    return Image.fromarray(pixels)


def draw_classes(results: Results, meta: dict) -> Image.Image:
    """Write under images what they were taken for.

    Args:
        results (Results): Samples with ``gt_label`` and ``pred_score``.
        meta (dict): The dataset's ``classes``; without them, numbers are
            written.
    """
    thumbnails = []
    for image, sample in results:
        scores = sample.pred_score
        best = int(scores.argmax())
        truth = sample.gt_label.tolist()  # Some images may have several.
        # Two spaces part the figures from a class that is one, too.
        caption = (f'{_class_name(meta, best)}  {100 * scores[best]:.0f} %',)
        if best not in truth:
            names = ' / '.join(_class_name(meta, label) for label in truth)
            caption += (f'true {names}',)
        thumbnails.append(
            Thumbnail(
                fit(image, THUMBNAIL),
                caption,
                RIGHT if best in truth else WRONG,
            )
        )
    right = sum(thumbnail.color == RIGHT for thumbnail in thumbnails)
    return tile_thumbnails(
        thumbnails, f'{right} of {len(thumbnails)} test images right'
    )


def _class_name(meta: dict, label: int) -> str:
    classes = meta.get('classes')
    if classes is None:
        return str(label)
    # ImageNet's names are lists of synonyms.
    name = classes[label].split(',')[0]
    if len(name) > NAME_LENGTH:
        return f'{name[: NAME_LENGTH - 3]}...'
    return name
