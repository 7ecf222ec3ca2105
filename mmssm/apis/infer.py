"""Predict for a user's own images; write pictures and JSON files."""

import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mmssm.checkpoint.strict_load import open_checkpoint
from mmssm.utils import ConfigError, atomic_write
from mmssm.utils.config import (
    load_config,
    require,
)
from mmssm.utils.device import find_device
from mmssm.utils.errors import one_line
from mmssm.utils.files import make_folder

from .classes import find_classes
from .geotiff import check_rasterio, predict_in_windows, takes_windows
from .images import (
    PARTS,
    Found,
    UnreadableImage,
    find_images,
    find_pairs,
)
from .model_index import find_model
from .tasks import Prediction, Predictor, Task, adapt_config, find_task

CONFIG_SUFFIXES = ('.py', '.json', '.yml', '.yaml')


@dataclass
class InferenceSummary:
    """How many images were done, and which were skipped.

    Attributes:
        done (int): How many images, or pairs of them, have results.
        skipped (dict[str, str]): By path, why an image has no results; a pair
            has the path of its earlier image.
        out_dir (Path): The folder with the results.
        unit (str): What is counted, ``'image'`` or ``'pair'``.
    """

    done: int
    skipped: dict[str, str]
    out_dir: Path
    unit: str = 'image'

    def __str__(self) -> str:
        units = self.unit if self.done == 1 else f'{self.unit}s'
        return f'{self.done} {units} done, {len(self.skipped)} skipped'


def infer(
    inputs: str | Path,
    config: str | Path,
    checkpoint: str | None = None,
    out_dir: str | Path | None = None,
    device: torch.device | str | None = None,
    score_thr: float = 0.3,
    optimize: str | None = None,
    options: dict | None = None,
    after: str | Path | None = None,
) -> InferenceSummary:
    """Predict for an image or a folder of images and write the results.

    A change detector takes pairs: earlier images as ``inputs``, later ones as
    ``after``.

    Each image gets a picture and a JSON file. The picture is
    ``vis/<name>.jpg`` for a JPEG image, else ``vis/<name>.png``; small images
    are enlarged. The JSON file is ``preds/<name>.json``::

        {"image": path, "width": pixels, "height": pixels, ...}

    with these fields, depending on the task:

    - detection ``"detections"``: ``[{"label", "name", "score", "bbox",
      "mask"}]``, the best first, no score below ``score_thr``; ``bbox`` is
      [left, top, right, bottom] in pixels of the image, ``mask`` (instance
      segmentation only) COCO's compressed RLE ``{"size": [height, width],
      "counts": text}``;
    - panoptic segmentation ``"segments"``: ``[{"id", "label", "name",
      "share"}]``, the largest share (0 to 1) of the pixels first, and
      ``"index_map"``: the file beside the JSON, ``<name>.png``, whose pixels
      are ids (16 bits), 0 where nothing was found;
    - segmentation ``"classes"``: ``[{"label", "name", "share"}]`` of the
      classes present, the largest share (0 to 1) of the pixels first, and
      ``"index_map"``: the file beside the JSON, ``<name>.png``, whose pixels
      are labels (8 bits; 16 for more than 256 classes);
    - change detection: as segmentation, and ``"image_after"``, the later
      image's path; the picture shows both images and what changed. A pair of
      GeoTIFF files is read in windows; its ``index_map`` is a GeoTIFF with the
      same georeference, see :mod:`mmssm.apis.geotiff`;
    - classification ``"classes"``: the five best ``[{"label", "name",
      "score"}]``; of a head for several labels, those that it predicts (its
      ``thr`` or ``topk``).

    ``<name>`` is the image's path in the folder without its suffix; images
    that differ only in the suffix keep it (``a.jpg`` and ``a.png``). Images
    are turned upright according to their EXIF data; sizes and boxes are those
    of the upright image. A file that cannot be read, or that the model cannot
    process (for example, one pixel wide), is named on stderr and skipped.
    Earlier results of the same name are replaced atomically.

    Args:
        inputs (str | Path): An image, or a folder that is searched with its
            subfolders for jpg, jpeg, png, bmp, tif, tiff and webp files;
            hidden ones and results in ``out_dir`` are left out. For change
            detection the earlier images.
        config (str | Path): A config for mmdet, mmseg or mmpretrain, or the
            name of a model in ``model-index.yml``.
        checkpoint (str, optional): A file or address. Written by mmssm or
            released by the original authors; it must fit the model exactly.
            May be left out for the name of a model with published weights.
        out_dir (str | Path, optional): Where the results go. Defaults to
            ``outputs/<config's name>``.
        device (torch.device | str, optional): Defaults to the first GPU if
            there is one, else to the CPU.
        score_thr (float): Detections with a lower score are left out.
        optimize (str, optional): 'float32' or 'bfloat16', the dtype of
            matrix products, to prepare the model by
            :func:`mmssm.optimize_for_inference`. On a CPU only.
        options (dict, optional): Config values to overwrite.
        after (str | Path, optional): For change detection only: the later
            image, or the folder with the later images, which have the names
            of the earlier ones.

    Returns:
        InferenceSummary: How many images were done and skipped.

    Raises:
        ConfigError: The inputs, the config or an option cannot be used, or
            the names of the classes are not known.
        CheckpointError: The checkpoint is unusable or of another model.
    """
    inputs = _existing(inputs)
    after = None if after is None else _existing(after)
    if not 0 <= score_thr <= 1:
        raise ConfigError(f'--score-thr {score_thr}: must be from 0 to 1')
    device = find_device(device)
    if optimize is not None and device.type != 'cpu':
        raise ConfigError(
            f'--optimize {optimize} prepares a model for a CPU, and this one '
            f'runs on {device}; leave it out, or add --device cpu'
        )
    config, checkpoint = _find_model(str(config), checkpoint)
    cfg = load_config(config, options)
    task = find_task(cfg, 'inference')
    require(cfg, 'model', 'test_dataloader', purpose='inference')
    _check_pairs(task, cfg, after)
    out_dir = Path(out_dir or Path('outputs') / Path(config).stem)
    out_dir = out_dir.expanduser()
    if after is None:
        found = find_images(inputs, out_dir)
    else:
        found = find_pairs(inputs, after, out_dir)
        check_rasterio(found.images.values())
    weights = open_checkpoint(checkpoint)
    summary = InferenceSummary(0, {}, out_dir, 'pair' if after else 'image')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        predict = task.build_predictor(
            adapt_config(cfg),
            weights,
            find_classes(cfg, weights),
            device,
            score_thr,
            optimize,
        )
        for part in PARTS:
            make_folder(out_dir / part, '--out-dir')
        _run(task, predict, found, summary)
    return summary


def _existing(inputs: str | Path) -> Path:
    inputs = Path(inputs).expanduser()
    if not inputs.exists():
        raise ConfigError(
            f'{inputs} does not exist; give an image or a folder'
        )
    return inputs


def _check_pairs(task: Task, cfg: Config, after: Path | None) -> None:
    """Refuse missing later images, and later images for another task."""
    if task.takes_pairs and after is None:
        raise ConfigError(
            f'config {cfg.filename} compares pairs of images; give the later '
            'ones with --after IMAGE_OR_DIR'
        )
    if after is not None and not task.takes_pairs:
        raise ConfigError(
            f'--after {after} is for pairs, but config {cfg.filename} takes '
            "single images; leave it out, or give a change detector's config"
        )


def _run(
    task: Task, predict: Predictor, found: Found, summary: InferenceSummary
) -> None:
    """Predict for all images, write the results and keep count."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,  # no bar in a log file
    )
    with progress:
        for path, reason in found.skipped.items():
            _skip(summary, path, reason)
        images = found.images.items()
        for name, paths in progress.track(images, description='inference'):
            try:
                if task.takes_pairs and takes_windows(paths):
                    prediction, shape = predict_in_windows(
                        partial(_predict, partial(predict, draw=False)),
                        paths,
                        summary.out_dir / 'preds' / f'{name}.tif',
                        progress,
                    )
                else:
                    image = task.read(paths)
                    prediction = _predict(predict, image)
                    shape = image.shape[:2]
            except UnreadableImage as error:
                _skip(summary, str(paths[0]), str(error))
            else:
                _write(prediction, shape, paths, name, summary.out_dir)
                summary.done += 1


def _predict(predict: Predictor, image: np.ndarray) -> Prediction:
    """Predict; raise UnreadableImage if the model cannot take the image."""
    try:
        return predict(image)
    except ConfigError:
        raise  # the error concerns all images
    except (cv2.error, ValueError, torch.OutOfMemoryError) as error:
        height, width = image.shape[:2]
        raise UnreadableImage(
            f'the model cannot take an image of {width} (width) x {height} '
            f'(height) pixels ({one_line(error)})'
        ) from error


def _skip(summary: InferenceSummary, path: str, reason: str) -> None:
    print(f'skipped {path}: {reason}', file=sys.stderr, flush=True)
    summary.skipped[path] = reason


def _write(
    prediction: Prediction,
    shape: tuple[int, int],
    paths: tuple[Path, ...],
    name: str,
    out_dir: Path,
) -> None:
    picture, target = prediction.picture, out_dir / 'preds' / f'{name}.json'
    height, width = shape
    record = dict(zip(('image', 'image_after'), map(str, paths)))
    record |= dict(width=width, height=height) | prediction.record
    if prediction.label_map is not None:
        index = target.with_name(f'{target.stem}.png')
        record['index_map'] = index.name
        with atomic_write(index) as file:
            Image.fromarray(prediction.label_map).save(file, 'PNG')
    as_jpeg = paths[0].suffix.lower() in ('.jpg', '.jpeg')
    suffix, kind = ('jpg', 'JPEG') if as_jpeg else ('png', 'PNG')
    with atomic_write(out_dir / 'vis' / f'{name}.{suffix}') as file:
        picture.save(file, kind, quality=92)
    # Written last: if the JSON file exists, the other results exist too.
    with atomic_write(target) as file:
        file.write(json.dumps(record).encode())


def _find_model(config: str, checkpoint: str | None) -> tuple[str, str]:
    """The config file and the checkpoint, for a path or a model's name."""
    path = Path(config)
    # Names may contain dots, so a suffix alone does not make a path.
    in_folder = os.sep in config or '/' in config
    if in_folder or path.suffix in CONFIG_SUFFIXES or path.is_file():
        if checkpoint is None:
            raise ConfigError(
                f'no checkpoint for {config}; give one, or the name of a '
                'model with published weights instead of the config'
            )
        return config, checkpoint
    path, weights = find_model(config)
    checkpoint = checkpoint or weights
    if checkpoint is None:
        raise ConfigError(
            f'no weights can be fetched for {config}: the model index has no '
            f'address of them; the README.md beside {path} may link to a '
            'download; give the downloaded file as checkpoint'
        )
    return path, checkpoint
