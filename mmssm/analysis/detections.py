"""Pictures of what a detector finds, beside the ground truth."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw, ImageFont

from mmssm.checkpoint import atomic_write, check_file
from mmssm.engine import check_data
from mmssm.engine.config import load_config

TILE = 440  # longer side of a drawn image, pixels
# mmdet's labels have a fixed size in points: the more dots per inch, the
# larger they are in a tile.
LABEL_DPI = 150
PAIRS_PER_ROW = 2
TITLES = ('ground truth', 'prediction')
TITLE_HEIGHT = 40
GAP = 6  # between the two sides of a pair; between pairs three times that
FORMATS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG'}


def draw_detections(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    num: int = 8,
    score_thr: float = 0.5,
    device: str | None = None,
) -> None:
    """Draw ground truth and prediction side by side for some test images.

    Args:
        config (str | Path): An mmdet config; its test set gives the images.
        checkpoint (str | Path): The trained detector.
        out (str | Path): The picture, ``.png`` or ``.jpg``.
        num (int): How many images, spread evenly over the test set.
        score_thr (float): Detections that score less are left out.
        device (str | None): Where the detector runs. By default a GPU if
            there is one.

    Raises:
        ConfigError: If the config or its data cannot be used.
        CheckpointError: If the checkpoint cannot be used.
        ValueError: If ``num`` is not positive or the suffix is another one.
    """
    out = Path(out)
    if num < 1:
        raise ValueError(f'--num {num}: at least 1 image must be drawn')
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f'cannot write {out}: name it .png or .jpg')
    checkpoint = check_file(checkpoint)
    cfg = load_config(str(config))
    check_data(cfg, 'test')
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    pairs = _draw_pairs(cfg, str(checkpoint), num, score_thr, device)
    with atomic_write(out) as file:
        tile_pairs(pairs).save(file, format=FORMATS[out.suffix.lower()])


def _draw_pairs(
    cfg: Config, checkpoint: str, num: int, score_thr: float, device: str
) -> list[tuple[Image.Image, Image.Image]]:
    from mmdet.apis import init_detector
    from mmdet.registry import DATASETS, VISUALIZERS
    from mmengine.dataset import pseudo_collate

    model = init_detector(cfg, checkpoint, device=device)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    visualizer = VISUALIZERS.build(
        dict(
            type='DetLocalVisualizer',
            name='draw_detections',
            line_width=1.5,
            alpha=0.5,
        )
    )
    visualizer.dataset_meta = dataset.metainfo
    visualizer.fig_save.set_dpi(LABEL_DPI)
    visualizer.dpi = LABEL_DPI
    num = min(num, len(dataset))
    pairs = []
    for index in np.linspace(0, len(dataset) - 1, num).round().astype(int):
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([dataset[int(index)]]))
        sample = sample.cpu()
        image = cv2.imread(sample.img_path)[..., ::-1]
        scale = TILE / max(image.shape[:2])
        image = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC
        )
        sides = []
        for draw_gt in (True, False):
            instances = (
                sample.gt_instances if draw_gt else sample.pred_instances
            )
            _enlarge(instances, image.shape[:2], scale)
            visualizer.add_datasample(
                'detections',
                image,
                sample,
                draw_gt=draw_gt,
                draw_pred=not draw_gt,
                pred_score_thr=score_thr,
            )
            sides.append(Image.fromarray(visualizer.get_image()))
        pairs.append(tuple(sides))
    return pairs


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


def tile_pairs(pairs: list[tuple[Image.Image, Image.Image]]) -> Image.Image:
    """Arrange pairs of pictures in rows, under titles."""
    columns = min(PAIRS_PER_ROW, len(pairs))
    rows = -(-len(pairs) // columns)
    pair_width = 2 * TILE + GAP
    canvas = Image.new(
        'RGB',
        (
            columns * (pair_width + 3 * GAP) - GAP,
            TITLE_HEIGHT + rows * (TILE + GAP),
        ),
        'white',
    )
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(TITLE_HEIGHT * 0.6)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, columns)
        top = TITLE_HEIGHT + row * (TILE + GAP)
        for side, (picture, title) in enumerate(zip(pair, TITLES)):
            left = GAP + column * (pair_width + 3 * GAP) + side * (TILE + GAP)
            # Images that are not square stand in the middle of their tile.
            canvas.paste(
                picture,
                (
                    left + (TILE - picture.width) // 2,
                    top + (TILE - picture.height) // 2,
                ),
            )
            if row == 0:
                pen.text(
                    (left + TILE / 2, TITLE_HEIGHT / 2),
                    title,
                    fill='black',
                    font=font,
                    anchor='mm',
                )
    return canvas
