"""Predictions for a person's own images: pictures and JSON files."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
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

from mmssm.checkpoint import atomic_write
from mmssm.engine import ConfigError
from mmssm.engine.config import load_config
from mmssm.engine.strict_load import open_checkpoint

from .images import Found, UnreadableImage, find_images, read_image
from .model_names import find_model
from .tasks import Prediction, Predictor, build_predictor, check_scope


@dataclass
class InferenceSummary:
    """What became of the images.

    Attributes:
        done (int): How many images have results.
        skipped (dict[str, str]): Why each unreadable file has none, by path.
        out_dir (Path): The folder with the results.
    """

    done: int
    skipped: dict[str, str]
    out_dir: Path

    def __str__(self) -> str:
        images = 'image' if self.done == 1 else 'images'
        return f'{self.done} {images} done, {len(self.skipped)} skipped'


def infer(
    inputs: str | Path,
    config: str | Path,
    checkpoint: str | None = None,
    out_dir: str | Path | None = None,
    device: str | None = None,
    score_thr: float = 0.3,
    options: dict | None = None,
) -> InferenceSummary:
    """Predict for an image or a folder of images and write the results.

    Each image gets a picture, ``vis/<name>.jpg`` (``.png`` unless the image
    is a JPEG), enlarged if it is small, and ``preds/<name>.json``::

        {"image": path, "width": pixels, "height": pixels, ...}

    with, by task,

    - detection ``"detections"``: ``[{"label", "name", "score", "bbox",
      "mask"}]``, the best first, no score below ``score_thr``; ``bbox`` is
      [left, top, right, bottom] in pixels of the image, ``mask`` (instance
      segmentation only) COCO's compressed RLE ``{"size": [height, width],
      "counts": text}``;
    - segmentation ``"classes"``: ``[{"label", "name", "share"}]`` of the
      classes present, the largest share (0 to 1) of the pixels first, and
      ``"index_map"``: the file beside the JSON, ``<name>.png``, whose pixels
      are labels (8 bits; 16 for more than 256 classes);
    - classification ``"classes"``: the five best ``[{"label", "name",
      "score"}]``.

    ``<name>`` is the image's path in the folder without its suffix; images
    that differ in the suffix only keep it (``a.jpg`` and ``a.png``). Images
    are turned upright as their EXIF data say, sizes and boxes too. A file
    that cannot be read is named on stderr and skipped. Earlier results of the
    same name are replaced, each in one step.

    Args:
        inputs (str | Path): An image, or a folder that is searched with its
            subfolders for jpg, jpeg, png, bmp, tif, tiff and webp files;
            hidden ones and results in ``out_dir`` are left out.
        config (str | Path): A config of mmdet, mmseg or mmpretrain's kind, or
            the name of a model in ``model-index.yml``.
        checkpoint (str, optional): A file or address: of mmssm, or as the
            original authors released it. It must fit the model exactly. May
            be left out for the name of a model with published weights.
        out_dir (str | Path, optional): Where the results go. Defaults to
            ``outputs/<config's name>``.
        device (str, optional): Defaults to ``'cuda:0'`` if there is a GPU,
            else ``'cpu'``.
        score_thr (float): Detections that score less are left out.
        options (dict, optional): Config values to overwrite.

    Returns:
        InferenceSummary: How many images were done and skipped.

    Raises:
        ConfigError: The inputs, the config or an option cannot be used, or
            the names of the classes are not known.
        CheckpointError: The checkpoint is unusable or of another model.
    """
    inputs = Path(inputs).expanduser()
    if not inputs.exists():
        raise ConfigError(
            f'{inputs} does not exist; give an image or a folder'
        )
    if not 0 <= score_thr <= 1:
        raise ConfigError(f'--score-thr {score_thr}: must be from 0 to 1')
    device = _find_device(device)
    config, checkpoint = _find_model(str(config), checkpoint)
    cfg = load_config(config, options)
    check_scope(cfg)
    out_dir = Path(out_dir or Path('outputs') / Path(config).stem)
    found = find_images(inputs, out_dir.expanduser())
    weights = open_checkpoint(checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        predict = build_predictor(cfg, weights, device, score_thr)
        return _run(predict, found, _make_folder(out_dir.expanduser()))


def _run(predict: Predictor, found: Found, out_dir: Path) -> InferenceSummary:
    summary = InferenceSummary(0, {}, out_dir)
    console = Console(stderr=True)
    progress = Progress(
        TextColumn('inference'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,  # a log wants no bar
    )
    with progress:
        for path, reason in found.skipped.items():
            _skip(summary, path, reason)
        for name, path in progress.track(found.images.items()):
            try:
                image = read_image(path)
            except UnreadableImage as error:
                _skip(summary, str(path), str(error))
            else:
                _write(predict(path, image), path, name, out_dir)
                summary.done += 1
    return summary


def _skip(summary: InferenceSummary, path: str, reason: str) -> None:
    print(f'skipped {path}: {reason}', file=sys.stderr, flush=True)
    summary.skipped[path] = reason


def _write(
    prediction: Prediction, path: Path, name: str, out_dir: Path
) -> None:
    picture, target = prediction.picture, out_dir / 'preds' / f'{name}.json'
    height, width = prediction.shape
    record = dict(image=str(path), width=width, height=height)
    record |= prediction.record
    if prediction.label_map is not None:
        index = target.with_name(f'{target.stem}.png')
        record['index_map'] = index.name
        with atomic_write(index) as file:
            Image.fromarray(prediction.label_map).save(file, 'PNG')
    as_jpeg = path.suffix.lower() in ('.jpg', '.jpeg')
    suffix, kind = ('jpg', 'JPEG') if as_jpeg else ('png', 'PNG')
    with atomic_write(out_dir / 'vis' / f'{name}.{suffix}') as file:
        picture.save(file, kind, quality=92)
    # Written last: where there is a JSON file, the rest is there too.
    with atomic_write(target) as file:
        file.write(json.dumps(record).encode())


def _find_device(device: str | None) -> str:
    if device is None:
        return 'cuda:0' if torch.cuda.is_available() else 'cpu'
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            f'--device {device}: no such device; give cpu, or cuda:0 and so on'
        ) from error
    count = torch.cuda.device_count()
    if found.type == 'cuda' and (found.index or 0) >= count:
        raise ConfigError(
            f'--device {device}: this machine shows {count} GPU(s); leave it '
            'out to use what is there'
        )
    return device


def _find_model(config: str, checkpoint: str | None) -> tuple[str, str]:
    """The config file and the checkpoint, also by a model's name."""
    is_path = Path(config).suffix or os.sep in config or Path(config).is_file()
    if is_path:
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
            f'no weights are published for {config}; give a checkpoint'
        )
    return path, checkpoint


def _make_folder(out_dir: Path) -> Path:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f'cannot write to {out_dir} ({error.strerror}); choose another '
            '--out-dir'
        ) from error
    return out_dir
