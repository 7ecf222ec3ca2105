"""Pictures of a dataset's images and annotations, before any training."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmssm.engine.runner.scoped_runner import build_dataset
from mmssm.utils import ConfigError
from mmssm.utils.config import load_config, require
from mmssm.utils.files import make_folder
from mmssm.visualization.palette import Classes, generate_palette
from mmssm.visualization.sheets import check_sheet_file, write_sheet

from .annotations import check_annotations
from .preflight import check_data
from .tasks import Task, find_task
from .tasks.base import Results

SPLITS = ('train', 'val', 'test')


def browse_dataset(
    config: str | Path,
    out: str | Path,
    split: str = 'train',
    num: int | None = None,
    options: dict | None = None,
) -> str:
    """Draw images of a dataset with their annotations.

    Images are drawn as the split's pipeline gives them to the model: resized,
    flipped, cropped.

    Args:
        config (str | Path): A config for mmdet, mmseg or mmpretrain.
        out (str | Path): The picture, ``.png`` or ``.jpg``.
        split (str): ``'train'``, ``'val'`` or ``'test'``.
        num (int | None): How many images, spread evenly over the dataset. By
            default 8, for a classifier 40.
        options (dict | None): Config values to overwrite.

    Returns:
        str: The number of images and, where annotations are in memory, of
        objects of each class, in one line.

    Raises:
        ConfigError: If the config or its data cannot be used.
        UserError: If ``num`` is not positive or ``out`` has another suffix.
    """
    out = check_sheet_file(out, num)
    cfg = load_config(str(config), options)
    task = find_task(cfg, 'drawing a dataset')
    loader = f'{split}_dataloader'
    require(cfg, loader, purpose='drawing a dataset')
    check_data(cfg, split)
    check_annotations(cfg, split)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = build_dataset(cfg[loader].dataset)
        make_folder(out.parent, '--out')
        classes = _find_classes(dataset)
        num = min(num or task.default_num, len(dataset))
        results = _samples(task, cfg, dataset, num)
        sheet = task.draw_truth(results, classes)
    write_sheet(sheet, out)
    return _count(task, dataset, classes)


def _find_classes(dataset: torch.utils.data.Dataset) -> Classes | None:
    names = dataset.metainfo.get('classes')
    if names is None:
        return None
    palette = dataset.metainfo.get('palette')
    if not isinstance(palette, (list, tuple)) or len(palette) < len(names):
        palette = generate_palette(len(names))
    colors = [tuple(map(int, color)) for color in palette]
    return Classes(list(names), colors, 'the dataset')


def _samples(
    task: Task, cfg: Config, dataset: torch.utils.data.Dataset, num: int
) -> Results:
    """Images, red-green-blue, with their samples."""
    for index in np.linspace(0, len(dataset) - 1, num).round().astype(int):
        item = dataset[int(index)]
        image, sample = item.get('inputs'), item.get('data_samples')
        if not isinstance(image, torch.Tensor) or image.dim() != 3:
            raise ConfigError(
                f'the pipeline of config {cfg.filename} gives no image of '
                'three dimensions; end it with PackDetInputs, PackSegInputs '
                'or PackInputs'
            )
        if sample is None or not task.has_truth(sample):
            raise ConfigError(
                f'the pipeline of config {cfg.filename} gives no {task.truth}'
                ' to draw; add LoadAnnotations to it'
            )
        image = image.permute(1, 2, 0).numpy()
        # Pairs are loaded red-green-blue, single images blue-green-red.
        if not task.takes_pairs:
            image = image[..., ::-1]
        yield np.ascontiguousarray(image.clip(0, 255).astype(np.uint8)), sample


def _count(
    task: Task, dataset: torch.utils.data.Dataset, classes: Classes | None
) -> str:
    counts = Counter(
        label for info in _infos(dataset) for label in task.true_labels(info)
    )
    unit = 'image' if len(dataset) == 1 else 'images'
    text = f'{len(dataset)} {unit}'
    if not counts:
        return text
    labels = range(len(classes.names)) if classes else sorted(counts)
    parts = [
        f'{classes.names[label] if classes else label}: {counts[label]}'
        for label in labels
    ]
    return f'{text}; {", ".join(parts)}'


def _infos(dataset: torch.utils.data.Dataset) -> Iterator[dict]:
    return (dataset.get_data_info(index) for index in range(len(dataset)))
