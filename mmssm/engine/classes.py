"""The names and colours of a config's classes."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS
from torch import nn

from .config import leaf_datasets
from .errors import ConfigError

# Where a model keeps the head that knows the number of classes.
_HEADS = ('roi_head.bbox_head', 'bbox_head', 'decode_head', 'head')

Color = tuple[int, int, int]  # RGB, 0 to 255


class Classes(NamedTuple):
    """Names and colours of the classes, by label."""

    names: list[str]
    palette: list[Color]
    source: str  # of the names, for messages


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
    test_set = _find_test_set(cfg)
    sources = {
        "the checkpoint's meta": saved,
        f'{test_set.place}.metainfo': test_set.given,
        test_set.kind: test_set.known,
    }
    source = next((s for s, m in sources.items() if m.get('classes')), None)
    names = sources[source]['classes'] if source else None
    if names is None or isinstance(names, str):
        raise ConfigError(
            _unknown(cfg, test_set.place, 'neither the checkpoint nor')
        )
    names = [str(name) for name in names]
    return Classes(names, find_palette(cfg, names, saved), source)


def find_palette(
    cfg: Config, names: Sequence[str], saved: dict | None = None
) -> list[Color]:
    """Colours for classes whose names are known.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        names (Sequence[str]): By label.
        saved (dict, optional): A checkpoint's ``palette``, used where the
            config's test dataset has none.

    Returns:
        list[Color]: One for each name, generated if there are none.
    """
    given, known, *_ = _find_test_set(cfg)
    colours = dict(zip(known.get('classes') or (), known.get('palette') or ()))
    for palette in (
        given.get('palette'),
        [colours[name] for name in names if name in colours],
        (saved or {}).get('palette'),
    ):
        if isinstance(palette, (list, tuple)) and len(palette) == len(names):
            return [tuple(map(int, colour)) for colour in palette]
    return generate_palette(len(names))


def check_classes(cfg: Config) -> None:
    """Refuse a test set whose class names the libraries would miss.

    mmseg's metrics count classes by their names, and its datasets refuse a
    palette that does not match. mmdet's metrics need the names, too, but
    some of its datasets read them from a file of their own, so they may be
    missing here, but not be a text. mmpretrain does without names.

    Args:
        cfg (Config): A config with a ``test_dataloader``.

    Raises:
        ConfigError: Says where to set the names or the palette.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmseg'):
        return
    given, known, kind, place = _find_test_set(cfg)
    names = given.get('classes') or known.get('classes')
    if isinstance(names, str) or (scope == 'mmseg' and not names):
        raise ConfigError(_unknown(cfg, place, f'neither {kind} nor'))
    palette = given.get('palette')
    if scope != 'mmseg' or not palette or len(palette) == len(names):
        return
    # Of a class's own names, some may be left out, and mmseg then leaves
    # their colours out.
    if len(palette) < len(names) or not known.get('classes'):
        raise ConfigError(
            f'{place}.metainfo of {cfg.filename} has {len(palette)} colours '
            f'for {len(names)} classes; give palette one for each class, or '
            'leave it out'
        )


def check_count(model: nn.Module, classes: Classes) -> None:
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


def generate_palette(count: int) -> list[Color]:
    """Distinct colours, always the same ones."""
    golden = (5**0.5 - 1) / 2  # its multiples spread evenly over the hues
    rgb = (
        colorsys.hsv_to_rgb(i * golden % 1, 0.55 + 0.4 * (i % 2), 0.95)
        for i in range(count)
    )
    return [tuple(round(255 * value) for value in colour) for colour in rgb]


def _unknown(cfg: Config, place: str, but: str) -> str:
    return (
        f'the class names are unknown: {but} {cfg.filename} lists them; set '
        f'{place}.metainfo.classes=("name", ...), in the order of the labels'
    )


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


class _TestSet(NamedTuple):
    given: dict  # what the config says of the classes
    known: dict  # what the dataset class says
    kind: str
    place: str  # in the config


def _find_test_set(cfg: Config) -> _TestSet:
    """The test set's meta; wrappers take over that of their first part."""
    root = 'test_dataloader.dataset'
    dataset, place = next(leaf_datasets(cfg.test_dataloader.dataset, root))
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            kind = registry.get(kind) or kind
    given = dict(dataset.get('metainfo') or {})
    if dataset.get('classes') is not None:  # mmpretrain's other place
        given.setdefault('classes', dataset.classes)
    names = given.get('classes')
    if isinstance(names, str) and Path(names).is_file():
        given['classes'] = list_from_file(names)
    known = dict(getattr(kind, 'METAINFO', None) or {})
    return _TestSet(given, known, getattr(kind, '__name__', str(kind)), place)
