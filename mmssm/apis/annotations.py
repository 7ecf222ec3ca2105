"""Check the annotations of a user's own COCO-style set before training."""

import json
import os.path as osp
from collections.abc import Callable, Sequence
from functools import cache

from mmengine.config import Config
from mmengine.fileio import list_from_file

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, metrics_of, type_name

# The lists of a file, and what is read of their entries.
_PARTS = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
    categories=('id', 'name'),
)
_SHOWN = 10  # categories listed in a message


def check_annotations(cfg: Config, *splits: str) -> None:
    """Raise a one-line error if names, masks or images do not fit.

    Only MMDetection's CocoDataset on local files is checked, and only where
    the config names the classes: those of COCO itself fit.

    Args:
        cfg (Config): The config to run. Its files exist.
        *splits (str): The splits used: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ConfigError: A file is not COCO-style JSON, a class is not among its
            categories, an object has no mask though masks are loaded, or an
            image does not exist.
    """
    read = cache(_read)
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        option = f'{split}_dataloader.dataset'
        found = list(leaf_datasets(loader.dataset, option))
        counts = []
        for dataset, place in found:
            if not _names_its_classes(dataset):
                continue
            names = _as_names(dataset['metainfo']['classes'], place)
            counts.append(_check_dataset(dataset, names, place, read))
            # Several sets may have a metric each, with other classes.
            if len(found) == 1:
                _check_evaluator(cfg, split, names, read)
        if split == 'train' and len(counts) == len(found) and not any(counts):
            raise ConfigError(
                f'no object of the classes of {place} in its ann_file, so '
                'that there is nothing to learn; add objects'
            )


def _names_its_classes(dataset: dict) -> bool:
    return (
        type_name(dataset['type']) == 'CocoDataset'
        and dataset.get('backend_args') is None
        and bool(dataset.get('ann_file'))
        and (dataset.get('metainfo') or {}).get('classes') is not None
    )


def _check_dataset(
    dataset: dict,
    names: Sequence[str],
    place: str,
    read: Callable[[str], dict],
) -> int:
    """The number of objects of the dataset, which is as it must be."""
    root = dataset.get('data_root') or ''
    path = osp.join(root, dataset['ann_file'])
    content = read(path)
    _check_names(names, content, path, f'{place}.metainfo.classes')
    objects = _kept_objects(content, names)
    if _loads_masks(dataset):
        _check_masks(objects, path)
    images = content['images']
    if not images:
        raise ConfigError(f'{path} ({place}.ann_file) has no image; add some')
    if (dataset.get('filter_cfg') or {}).get('filter_empty_gt'):
        used = {item['image_id'] for item in objects}
        images = [image for image in images if image['id'] in used]
        if not images:
            raise ConfigError(
                f'no image in {path} has an object of the classes of {place}, '
                'and the others are left out; add objects'
            )
    folder = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = osp.join(root, folder)
    _check_images(images, path, folder, f'{place}.data_prefix.img')
    return len(objects)


def _read(path: str) -> dict:
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except ValueError as error:
        raise ConfigError(f'{path} is not a JSON file: {error}') from error
    missing = [p for p in ('images', 'categories') if p not in content]
    if missing:
        raise ConfigError(
            f'{path} has no {" and no ".join(missing)}; a COCO-style file '
            f'has the lists {", ".join(_PARTS)}'
        )
    content.setdefault('annotations', [])  # a test set may have none
    for part, keys in _PARTS.items():
        for number, entry in enumerate(content[part]):
            for key in keys:
                if key not in entry:
                    raise ConfigError(
                        f'{part}[{number}] in {path} has no {key}; add it'
                    )
    return content


def _as_names(names: str | Sequence[str], place: str) -> Sequence[str]:
    if not isinstance(names, str):
        return names
    if osp.isfile(names):
        return list_from_file(names)
    raise ConfigError(
        f'{place}.metainfo.classes is the text {names!r}; give a tuple of '
        f'names, for one class with a comma: ({names!r},)'
    )


def _check_names(
    names: Sequence[str], content: dict, path: str, option: str
) -> None:
    known = [category['name'] for category in content['categories']]
    unknown = [repr(name) for name in names if name not in known]
    if unknown:
        listed = ', '.join(map(repr, known[:_SHOWN])) or 'none'
        more = ', ...' if len(known) > _SHOWN else ''
        raise ConfigError(
            f'{option} names {", ".join(unknown[:_SHOWN])}, but the '
            f'categories of {path} are {listed}{more}; write the names as '
            'they are there'
        )


def _kept_objects(content: dict, names: Sequence[str]) -> list[dict]:
    """The objects that MMDetection does not leave out."""
    kept = {c['id'] for c in content['categories'] if c['name'] in names}
    return [
        item
        for item in content['annotations']
        if item['category_id'] in kept
        and not item.get('ignore')
        and item['area'] > 0
        and min(item['bbox'][2:]) >= 1
    ]


def _loads_masks(dataset: dict) -> bool:
    return any(
        type_name(step['type']) == 'LoadAnnotations' and step.get('with_mask')
        for step in dataset.get('pipeline') or []
    )


def _check_masks(objects: list[dict], path: str) -> None:
    without = [item for item in objects if not item.get('segmentation')]
    if without:
        raise ConfigError(
            f'{len(without)} of {len(objects)} objects in {path} have no '
            f'segmentation (the first has id {without[0].get("id")}), but the '
            'pipeline loads masks; add them, or use a detector without masks'
        )


def _check_images(
    images: list[dict], path: str, folder: str, option: str
) -> None:
    names = [image['file_name'] for image in images]
    missing = [n for n in names if not osp.exists(osp.join(folder, n))]
    if missing:
        raise ConfigError(
            f'{len(missing)} of {len(names)} images in {path} do not exist, '
            f'the first is {osp.join(folder, missing[0])}; its file_name is '
            f'relative to data_root and {option}'
        )


def _check_evaluator(
    cfg: Config,
    split: str,
    names: Sequence[str],
    read: Callable[[str], dict],
) -> None:
    """The metric needs the same classes in the file that it reads."""
    for metric in metrics_of(cfg, split):
        path = metric.get('ann_file')
        if type_name(metric['type']) == 'CocoMetric' and path:
            option = f'{split}_dataloader.dataset.metainfo.classes'
            _check_names(names, read(path), path, option)
