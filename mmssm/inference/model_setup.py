"""Configs and class names, made ready for inference."""

import colorsys
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS
from torch import nn

from mmssm.engine import ConfigError
from mmssm.engine.config import require

# Where a model keeps the head that knows the number of classes.
_HEADS = ('roi_head.bbox_head', 'bbox_head', 'decode_head', 'head')


class Classes(NamedTuple):
    """Names and RGB colours (0 to 255) of the classes, by label."""

    names: list[str]
    palette: list[tuple[int, int, int]]
    source: str  # of the names, for messages


def adapt_config(cfg: Config) -> Config:
    """Make a config one for bare, local images.

    Args:
        cfg (Config): A config of mmdet, mmseg or mmpretrain's kind.

    Returns:
        Config: A copy whose test dataset is out of any wrapper, whose test
        pipeline loads images and no annotations, and whose model has its
        ``data_preprocessor``.

    Raises:
        ConfigError: A part is missing, or the pipeline reads something else.
    """
    require(cfg, 'model', 'test_dataloader', purpose='inference')
    cfg = deepcopy(cfg)
    cfg.test_dataloader.dataset = _innermost(cfg.test_dataloader.dataset)
    _adapt_pipeline(cfg)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg


def _innermost(dataset: ConfigDict) -> ConfigDict:
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = (
            dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
        )
    return dataset


def _adapt_pipeline(cfg: Config) -> None:
    """Make the test pipeline one for bare, local images."""
    dataset = cfg.test_dataloader.dataset
    pipeline = [
        step
        for step in dataset.get('pipeline', [])
        if not (
            _type_of(step).startswith('Load') and 'Annot' in _type_of(step)
        )
    ]
    loaders = [s for s in pipeline if _type_of(s) == 'LoadImageFromFile']
    if not loaders:
        raise ConfigError(
            f'test_dataloader.dataset.pipeline of {cfg.filename} has no '
            'LoadImageFromFile; inference needs one that reads single images'
        )
    for step in loaders:
        # The inferencers look for the bare name; the image is a local file.
        step.type = 'LoadImageFromFile'
        step.pop('backend_args', None)
        step.pop('file_client_args', None)
    dataset.pipeline = pipeline


def _type_of(step: ConfigDict) -> str:
    """A transform's class name without its scope."""
    kind = step['type']
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]


def find_classes(cfg: Config, checkpoint: dict) -> Classes:
    """The classes' names and colours, of the first source that has them.

    Names: the checkpoint's ``meta``, the config's test dataset (``metainfo``
    or ``classes``), the dataset class. Colours: the config's test dataset,
    the dataset class where it knows all the names, the checkpoint. Without
    any, colours are generated, the same ones every time.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        checkpoint (dict): The opened checkpoint.

    Returns:
        Classes: As many colours as names.

    Raises:
        ConfigError: No source has names.
    """
    saved = _saved_meta(checkpoint)
    given, known = _dataset_meta(cfg)
    sources = {
        "the checkpoint's meta": saved,
        'test_dataloader.dataset.metainfo': given,
        f'{cfg.test_dataloader.dataset.get("type")}': known,
    }
    source = next((s for s, m in sources.items() if m.get('classes')), None)
    names = sources[source]['classes'] if source else None
    if names is None or isinstance(names, str):
        raise ConfigError(
            f'the class names are unknown: neither the checkpoint nor '
            f'{cfg.filename} lists them; set '
            'test_dataloader.dataset.metainfo.classes=("name", ...), in the '
            'order of the labels'
        )
    names = [str(name) for name in names]
    colours = dict(zip(known.get('classes') or (), known.get('palette') or ()))
    for palette in (
        given.get('palette'),
        [colours[name] for name in names if name in colours],
        saved.get('palette'),
    ):
        if isinstance(palette, (list, tuple)) and len(palette) == len(names):
            palette = [tuple(map(int, colour)) for colour in palette]
            return Classes(names, palette, source)
    return Classes(names, generate_palette(len(names)), source)


def _saved_meta(checkpoint: dict) -> dict:
    meta = checkpoint.get('meta')
    if not isinstance(meta, dict):
        return {}
    if isinstance(meta.get('dataset_meta'), dict):
        meta = meta['dataset_meta']
    # OpenMMLab's releases before 2023 write them in capitals.
    return {
        key.lower(): value
        for key, value in meta.items()
        if key.lower() in ('classes', 'palette')
    }


def _dataset_meta(cfg: Config) -> tuple[dict, dict]:
    """What the config says about the test set, and what its class knows."""
    dataset = cfg.test_dataloader.dataset
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            kind = registry.get(kind)
    given = dict(dataset.get('metainfo') or {})
    if dataset.get('classes') is not None:  # mmpretrain's other place
        given.setdefault('classes', dataset.classes)
    if (
        isinstance(given.get('classes'), str)
        and Path(given['classes']).is_file()
    ):
        given['classes'] = list_from_file(given['classes'])
    return given, dict(getattr(kind, 'METAINFO', None) or {})


def generate_palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours (0 to 255), always the same ones."""
    golden = (5**0.5 - 1) / 2  # its multiples spread evenly over the hues
    rgb = (
        colorsys.hsv_to_rgb(i * golden % 1, 0.55 + 0.4 * (i % 2), 0.95)
        for i in range(count)
    )
    return [tuple(round(255 * value) for value in colour) for colour in rgb]


def check_classes(model: nn.Module, classes: Classes) -> None:
    """Raise a ConfigError unless a model's head has as many classes."""
    for place in _HEADS:
        head: Any = model
        for name in place.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):  # a cascade ends in the result
            head = head[-1]
        count = getattr(head, 'num_classes', None)
        if count is not None and count != len(classes.names):
            raise ConfigError(
                f'{classes.source} lists {len(classes.names)} class names '
                f'({classes.names[0]}, ...), but model.{place} has {count} '
                'classes; the names must be those of the labels that the '
                'checkpoint was trained with'
            )
