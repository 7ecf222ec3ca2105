"""Check that a config's model fits its backbone and its datasets."""

import os
import os.path as osp
from collections.abc import Iterator, Sequence

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, MODELS
from torch import nn

from mmssm.backbones.base import SSMBackbone
from mmssm.backbones.hierarchical import HierarchicalBackbone
from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, registered, type_name

from .classes import named_classes

# What takes the backbone's maps, if there is no neck.
_HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'head')
# Necks without in_channels, whose outputs have the channels of their inputs.
_SAME_CHANNELS = (
    'GlobalAveragePooling',
    'GeneralizedMeanPooling',
    'Feature2Pyramid',
)
# Heads that learn something else than the dataset's classes.
_OTHER_TARGETS = ('STDCHead',)
_CLASSIFYING = (
    'roi_head.bbox_head',
    'roi_head.mask_head',
    'bbox_head',
    'mask_head',
    'decode_head',
    'auxiliary_head',
    'head',
)
_SEGMENTING = ('decode_head', 'auxiliary_head')


def is_own_backbone(cfg: Config, backbone: dict) -> bool:
    """Whether a backbone's config names one of mmssm's, or a subclass.

    Args:
        cfg (Config): The config, for its ``default_scope``.
        backbone (dict): The backbone's part of it.
    """
    kind = registered(MODELS, backbone, cfg.get('default_scope'))
    return kind is not None and issubclass(kind, SSMBackbone)


def check_channels(cfg: Config, model: nn.Module | dict) -> None:
    """Refuse a neck or head that expects other channels than it will get.

    Only models with a backbone of mmssm are checked, where the config tells
    what the neck or head expects.

    Args:
        cfg (Config): The config.
        model (nn.Module | dict): The model that was built from it; a dict,
            which is not built yet, is not checked.

    Raises:
        ConfigError: Names the option and the value that fits.
    """
    if not isinstance(model, nn.Module):
        return  # mmengine's FlexibleRunner builds it later
    backbones = (m for m in model.modules() if isinstance(m, SSMBackbone))
    backbone = next(backbones, None)
    part = _part_with_backbone(cfg)
    if backbone is None or part is None:
        return
    if not backbone.out_strides and 'head' not in part[1]:
        name = type(backbone).__name__
        raise ConfigError(
            f"{name} gives a vector (out_type='{backbone.out_type}'), but "
            f'{type_name(cfg.model.type)} needs maps; set '
            f"{part[0]}.backbone.out_type='featmap'"
        )
    for option, wanted, index in _expected_channels(*part):
        _check_option(option, wanted, index, backbone, part[0])


def check_num_classes(cfg: Config, *splits: str) -> None:
    """Refuse a head that has other classes than a dataset.

    Only models with a backbone of mmssm are checked, and only datasets whose
    classes are known before they are read.

    Args:
        cfg (Config): The config to run.
        *splits (str): The splits used: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ConfigError: Names the heads, the dataset and both ways to mend it.
    """
    part = _part_with_backbone(cfg)
    if part is None or not is_own_backbone(cfg, part[1].backbone):
        return
    heads = dict(_class_counts(*part))
    # With texts, num_classes is only the largest number of classes.
    if not heads or 'language_model' in part[1]:
        return
    datasets = list(_datasets(cfg, *splits))
    folders = {option: _folders(dataset) for option, dataset in datasets}
    _compare_folders({o: found for o, found in folders.items() if found})
    first: tuple[str, list[str]] | None = None
    for option, dataset in datasets:
        names = _class_names(cfg, option, dataset, folders[option])
        if not names:
            continue
        _compare_classes(heads, dataset, option, names)
        first = first or (option, names)
        if names != first[1] and sorted(names) == sorted(first[1]):
            raise ConfigError(
                f'{option} and {first[0]} name the same classes in another '
                'order, which gives them other labels; use one order'
            )


def _datasets(cfg: Config, *splits: str) -> Iterator[tuple[str, ConfigDict]]:
    """Datasets with one label per class, and their options."""
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        place = f'{split}_dataloader.dataset'
        for dataset, option in leaf_datasets(loader.dataset, place):
            kind = registered(DATASETS, dataset, cfg.get('default_scope'))
            names = {base.__name__ for base in getattr(kind, '__mro__', ())}
            # Things and stuff have heads of their own; in videos, tracks.
            if not names & {'CocoPanopticDataset', 'BaseVideoDataset'}:
                yield option, dataset


def _class_names(
    cfg: Config, option: str, dataset: ConfigDict, found: list[str]
) -> list[str]:
    """The names that the config gives, or else those of the folders."""
    names = named_classes(cfg, dataset)
    if names and found and len(found) != len(names):
        raise ConfigError(
            f'{option} names {len(names)} classes, but its data have '
            f'{len(found)} class folders ({found[0]}, ...); the names must be '
            'those of the folders, in alphabetical order'
        )
    is_training = option.startswith('train_')
    if cfg.get('default_scope') == 'mmseg' and not is_training and not names:
        raise ConfigError(
            f'{option} ({type_name(dataset["type"])}) has no class names, '
            "which mmseg's metrics need; set "
            f'{option}.metainfo.classes=("name", ...), in the order of the '
            'labels'
        )
    return names or found


def _part_with_backbone(cfg: Config) -> tuple[str, ConfigDict] | None:
    """The key and the part of ``model`` that has a backbone."""
    waiting = [('model', cfg.model)]
    while waiting:
        place, part = waiting.pop(0)
        if not isinstance(part, dict):
            continue
        if isinstance(part.get('backbone'), dict):
            return place, part
        for key, value in part.items():
            # Test-time augmentation wraps the model of the config.
            inner = place if key == 'module' else f'{place}.{key}'
            waiting.append((inner, value))
    return None


def _as_list(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _numbered(place: str, value: object) -> Iterator[tuple[str, dict]]:
    """The dicts of a value that is one, or a list of some."""
    several = isinstance(value, (list, tuple))
    for number, part in enumerate(_as_list(value)):
        if isinstance(part, dict):
            yield f'{place}.{number}' if several else place, part


def _expected_channels(
    place: str, model: dict
) -> Iterator[tuple[str, int | list[int], int | list[int] | None]]:
    """The option, its value and the indices of the maps that it is about."""
    for option, neck in _numbered(f'{place}.neck', model.get('neck')):
        if 'in_channels' in neck:
            yield f'{option}.in_channels', neck['in_channels'], None
            return
        if type_name(neck.get('type', '')) not in _SAME_CHANNELS:
            return
    for name in _HEADS:
        for option, head in _numbered(f'{place}.{name}', model.get(name)):
            if 'in_channels' in head:
                index = head.get('in_index')
                yield f'{option}.in_channels', head['in_channels'], index
            if 'c1_in_channels' in head:  # DeepLabV3+: also the first map
                yield f'{option}.c1_in_channels', head['c1_in_channels'], 0


def _check_option(
    option: str,
    wanted: int | Sequence[int],
    index: int | Sequence[int] | None,
    backbone: SSMBackbone,
    place: str,
) -> None:
    given = backbone.out_channels
    one = isinstance(wanted, int)
    if index is None:
        index = -1 if one else range(max(len(wanted), len(given)))
    indices = [index] if isinstance(index, int) else list(index)
    try:
        fitting = [given[i] for i in indices]
    except IndexError:  # fewer maps than are asked for
        fitting = None
    if fitting == _as_list(wanted):
        return
    name = type(backbone).__name__
    has = (
        f'{option} is {wanted}, but {name} gives {len(given)} map'
        f'{"s" * (len(given) > 1)} of {", ".join(map(str, given))} channels '
        f'(out_indices={backbone.out_indices})'
    )
    if fitting is not None and (one or len(fitting) == len(wanted)):
        value = fitting[0] if one else fitting
        raise ConfigError(f'{has}; set {option}={value}')
    raise ConfigError(f'{has}; {_other_maps(option, wanted, backbone, place)}')


def _other_maps(
    option: str,
    wanted: int | Sequence[int],
    backbone: SSMBackbone,
    place: str,
) -> str:
    """What to set, where another number of maps is expected."""
    number = 1 if isinstance(wanted, int) else len(wanted)
    stages = backbone._count_stages()
    if isinstance(backbone, HierarchicalBackbone) and number <= stages:
        indices = list(range(stages - number, stages))
        channels = [backbone._channels_of(i) for i in indices]
        return (
            f'set {place}.backbone.out_indices={indices} and '
            f'{option}={channels}'
        )
    return (
        f'all maps of {type(backbone).__name__} have one size; set {place}.'
        "neck to dict(type='mmssm.models.SimpleFPN', in_channels="
        f'{backbone.out_channels[-1]}), which makes several of one, and the '
        "heads' in_channels to its out_channels, 256"
    )


def _class_counts(place: str, model: dict) -> Iterator[tuple[str, int]]:
    for name in _CLASSIFYING:
        head: object = model
        for key in name.split('.'):
            head = head.get(key) if isinstance(head, dict) else None
        for option, part in _numbered(f'{place}.{name}', head):
            if (
                'num_classes' in part
                and not part.get('class_agnostic')
                and type_name(part.get('type', '')) not in _OTHER_TARGETS
                # A segmentor's head of one class tells two by a threshold.
                and (part['num_classes'] > 1 or name not in _SEGMENTING)
            ):
                yield f'{option}.num_classes', part['num_classes']


def _folders(dataset: dict) -> list[str]:
    """The classes of a set of images in one folder per class."""
    if type_name(dataset['type']) != 'CustomDataset' or dataset.get(
        'ann_file'
    ):
        return []
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path', '')
    folder = osp.join(dataset.get('data_root') or '', prefix)
    if not dataset.get('with_label', True) or not osp.isdir(folder):
        return []
    return sorted(e.name for e in os.scandir(folder) if e.is_dir())


def _compare_folders(folders: dict[str, list[str]]) -> None:
    """The folders' order makes the labels, so that all sets need the same."""
    for option, names in folders.items():
        first, expected = next(iter(folders.items()))
        if names != expected:
            odd = sorted(set(names) ^ set(expected))[0]
            raise ConfigError(
                f'{option} and {first} have different class folders (first: '
                f'{odd!r}), which would give one class different labels; make '
                'an empty folder where one is missing'
            )


def _compare_classes(
    heads: dict[str, int], dataset: dict, option: str, names: Sequence[str]
) -> None:
    wrong = {k: v for k, v in heads.items() if v != len(names)}
    if not wrong:
        return
    first, count = next(iter(wrong.items()))
    shown = ', '.join([*names[:3], *['...'] * (len(names) > 3)])
    settings = ' '.join(f'{key}={len(names)}' for key in wrong)
    raise ConfigError(
        f'{first} is {count}, but {option} ({type_name(dataset["type"])}) has '
        f'{len(names)} classes ({shown}); if these are right, set {settings}; '
        f'if not, set {option}.metainfo.classes to your {count} names'
    )
