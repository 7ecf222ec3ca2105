"""The names and colors of a config's classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS
from torch import nn

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, registered
from mmssm.utils.errors import warn
from mmssm.visualization.palette import Classes, Color, generate_palette

# The heads of models that have a ``num_classes``, that of all classes first.
_HEADS = (
    'panoptic_fusion_head',
    'roi_head.bbox_head',
    'bbox_head',
    'decode_head',
    'head',
)
BACKGROUND = 'background'
_GRAY = (128, 128, 128)


def find_classes(cfg: Config, checkpoint: dict) -> Classes:
    """Find the names and colors of the classes.

    The first source that has them is used. Sources of names, in this order:
    the checkpoint's ``meta``, the config's test dataset (``metainfo`` or
    ``classes``), the dataset class. Sources of colors: the config's test
    dataset, the dataset class if it knows all the names, the checkpoint. If
    no source has colors, they are generated, always the same ones.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        checkpoint (dict): The opened checkpoint.

    Returns:
        Classes: As many colors as names.

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
    """Colors for classes whose names are known.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        names (Sequence[str]): The names, in the order of the labels.
        saved (dict, optional): A checkpoint's ``palette``, used where the
            config's test dataset has none.

    Returns:
        list[Color]: One for each name, generated if no source has them.
    """
    given, known, *_ = _find_test_set(cfg)
    colors = dict(zip(known.get('classes') or (), known.get('palette') or ()))
    for palette in (
        given.get('palette'),
        [colors[name] for name in names if name in colors],
        (saved or {}).get('palette'),
    ):
        if isinstance(palette, (list, tuple)) and len(palette) == len(names):
            return [tuple(map(int, color)) for color in palette]
    return generate_palette(len(names))


def check_names(cfg: Config, needed: bool) -> None:
    """Refuse class names that are one string, or needed but missing.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        needed (bool): Whether the test set must have names.

    Raises:
        ConfigError: Says where to set the names.
    """
    given, known, kind, place = _find_test_set(cfg)
    names = given.get('classes') or known.get('classes')
    if isinstance(names, str) or (needed and not names):
        raise ConfigError(_unknown(cfg, place, f'neither {kind} nor'))


def check_palette(cfg: Config) -> None:
    """Refuse a palette that does not match the names, as mmseg does.

    Args:
        cfg (Config): A config with a ``test_dataloader``, whose classes have
            names.

    Raises:
        ConfigError: Says where to set the palette.
    """
    given, known, _, place = _find_test_set(cfg)
    names = given.get('classes') or known.get('classes')
    palette = given.get('palette')
    if not palette or len(palette) == len(names):
        return
    # A config may use only some of the dataset class's names; mmseg then
    # uses only their colors.
    if len(palette) < len(names) or not known.get('classes'):
        raise ConfigError(
            f'{place}.metainfo of {cfg.filename} has {len(palette)} colors '
            f'for {len(names)} classes; give palette one color per class, or '
            'leave it out'
        )


def has_threshold(cfg: Config) -> bool:
    """Whether a segmentor has one output, which tells two classes apart.

    Args:
        cfg (Config): A config for mmseg.
    """
    head = (cfg.get('model') or {}).get('decode_head')
    head = head[-1] if isinstance(head, (list, tuple)) else head
    if not isinstance(head, dict):
        return False
    return (head.get('out_channels') or head.get('num_classes')) == 1


def add_background(classes: Classes) -> Classes:
    """Name label 0 of a segmentor with a threshold, if only label 1 is named.

    Args:
        classes (Classes): The names and colors of its classes.
    """
    if len(classes.names) != 1:
        return classes
    return Classes(
        [BACKGROUND, *classes.names],
        [_GRAY, *classes.palette],
        classes.source,
    )


def name_background(cfg: Config) -> None:
    """Do the same for a config's test set: mmseg's metric counts the names.

    Args:
        cfg (Config): Changed in place. A config for mmseg with a
            ``test_dataloader``.

    Raises:
        ConfigError: The dataset class has the name, not the config.
    """
    for dataset, place in leaf_datasets(
        cfg.test_dataloader.dataset, 'test_dataloader.dataset'
    ):
        given, known, kind = _read_meta(cfg, dataset)
        names = given.get('classes') or known.get('classes')
        if names is None or len(names) != 1:
            continue
        if known.get('classes'):
            raise ConfigError(
                f'{kind} names one class, {names[0]}, but the one output of '
                f'model.decode_head tells two apart; name the other one '
                f'first: {BACKGROUND!r}, {names[0]!r}'
            )
        colors = find_palette(cfg, names)
        dataset.metainfo.update(
            classes=(BACKGROUND, *names), palette=[_GRAY, *colors]
        )
        warn(
            f'{place} names one class, {names[0]}; label 0 is called '
            f'{BACKGROUND}'
        )


def named_classes(cfg: Config, dataset: ConfigDict) -> list[str]:
    """The names of a dataset's classes, if the config or its class has them.

    Args:
        cfg (Config): The config, for its ``default_scope``.
        dataset (ConfigDict): A dataset of it, not a wrapper.

    Returns:
        list[str]: Empty if the names are unknown before the data are read.
    """
    given, known, _ = _read_meta(cfg, dataset)
    names = given.get('classes') or known.get('classes') or ()
    return [] if isinstance(names, str) else [str(name) for name in names]


def check_count(model: nn.Module, classes: Classes) -> None:
    """Raise a ConfigError unless a model's head has as many classes."""
    for place in _HEADS:
        head: Any = model
        for name in place.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):  # the last stage of a cascade
            head = head[-1]
        count = getattr(head, 'num_classes', None)
        if place == 'decode_head' and getattr(head, 'out_channels', 0) == 1:
            count = 2  # a threshold tells two classes apart
        if count is not None and count != len(classes.names):
            raise ConfigError(
                f'{classes.source} lists {len(classes.names)} class names '
                f'({classes.names[0]}, ...), but model.{place} has {count} '
                'classes; the names must be those of the labels that the '
                'checkpoint was trained with'
            )
        if place == 'panoptic_fusion_head' and count is not None:
            return  # its parts have only some of the classes


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
    given: dict  # what the config says about the classes
    known: dict  # what the dataset class says
    kind: str
    place: str  # in the config


def _find_test_set(cfg: Config) -> _TestSet:
    """The meta of the test set; for a wrapper, of its first part."""
    root = 'test_dataloader.dataset'
    dataset, place = next(leaf_datasets(cfg.test_dataloader.dataset, root))
    return _TestSet(*_read_meta(cfg, dataset), place)


def _read_meta(cfg: Config, dataset: ConfigDict) -> tuple[dict, dict, str]:
    """What the config and the dataset class say; the name of the class."""
    kind = registered(DATASETS, dataset, cfg.get('default_scope'))
    kind = kind or dataset.get('type')  # not registered: only its name
    given = dict(dataset.get('metainfo') or {})
    if dataset.get('classes') is not None:  # mmpretrain reads them here too
        given.setdefault('classes', dataset.classes)
    names = given.get('classes')
    if isinstance(names, str) and Path(names).is_file():
        given['classes'] = list_from_file(names)
    known = dict(getattr(kind, 'METAINFO', None) or {})
    return given, known, getattr(kind, '__name__', str(kind))
