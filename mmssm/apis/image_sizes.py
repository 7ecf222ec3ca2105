"""The image size at which a classifier's config tests."""

import copy
from collections.abc import Iterator, Sequence

from mmengine.config import Config

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, type_name

# The arguments of mmpretrain's transforms that set the image size; the first
# one is the size itself.
_RESIZES = dict(
    Resize=('scale',),
    ResizeEdge=('scale',),
    EfficientNetCenterCrop=('crop_size', 'crop_padding'),
)
_CROPS = dict(CenterCrop=('crop_size',))
# mmpretrain's default values.
_DEFAULTS = dict(crop_padding=32)
_SET = 'test_dataloader.dataset'


def own_size(cfg: Config) -> int:
    """The height and width of the images at which the config tests.

    Args:
        cfg (Config): A config with a ``test_dataloader``.

    Raises:
        ConfigError: The test pipeline sets no size or one that is not
            square, or the parts of the test set have different sizes.
    """
    sizes = {
        place: _pipeline_size(dataset.get('pipeline') or [], place)
        for dataset, place in leaf_datasets(cfg.test_dataloader.dataset, _SET)
    }
    if len(set(sizes.values())) > 1:
        listed = ', '.join(f'{place} {size}' for place, size in sizes.items())
        raise ConfigError(
            'the parts of the test set have images of different sizes '
            f'({listed}); give their pipelines one size'
        )
    return next(iter(sizes.values()))


def size_options(cfg: Config, size: int) -> dict:
    """The config values to overwrite for images of another size.

    From the first resize on, all sizes in the test pipeline are multiplied by
    the same factor and rounded down, so that the same share of the image is
    cropped: 256 and 224 become 438 and 384. A batch has no more images and no
    more pixels than the config's own batch, but at least one image.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        size (int): Height and width of the images, pixels.

    Returns:
        dict: ``test_dataloader.batch_size``, the whole pipeline of each part
        of the test set, and ``test_dataloader.persistent_workers=False``.

    Raises:
        ConfigError: See :func:`own_size`.
    """
    own = own_size(cfg)
    options = {}
    for dataset, place in leaf_datasets(cfg.test_dataloader.dataset, _SET):
        pipeline = copy.deepcopy(dataset.pipeline)
        for transform, keys in _size_transforms(pipeline, place):
            for key in keys:
                value = transform.get(key, _DEFAULTS.get(key))
                transform[key] = _scale(value, size, own)
        # The whole pipeline: if the user's options replace the pipeline,
        # single values in it cannot be set.
        options[f'{place}.pipeline'] = pipeline
    # Persistent workers would still run while the next size is tested.
    options['test_dataloader.persistent_workers'] = False
    batch = cfg.test_dataloader.get('batch_size', 1)
    fitting = batch * own**2 // size**2
    options['test_dataloader.batch_size'] = max(1, min(batch, fitting))
    return options


def _pipeline_size(pipeline: Sequence[dict], place: str) -> int:
    transforms = list(_size_transforms(pipeline, place))
    if not transforms:
        found = ', '.join(type_name(step['type']) for step in pipeline)
        raise ConfigError(
            f'{place}.pipeline sets no image size (found: {found or "none"}); '
            f'give it one of {", ".join(_RESIZES)}'
        )
    transform, (key, *_) = transforms[-1]
    value = transform[key]
    sides = {value} if isinstance(value, int) else {*value}
    if len(sides) > 1:
        name = type_name(transform['type'])
        raise ConfigError(
            f'{place}.pipeline makes images that are not square ({name}, '
            f'{key}={tuple(value)}); set both sides to the same number'
        )
    return sides.pop()


def _size_transforms(
    pipeline: Sequence[dict], place: str
) -> Iterator[tuple[dict, tuple[str, ...]]]:
    """The transforms that set the image size, and their arguments.

    A crop before the first resize is in pixels of the original image and is
    not changed.
    """
    known = _RESIZES
    for step in pipeline:
        name = type_name(step['type'])
        if name not in known:
            continue
        keys = known[name]
        value = step.get(keys[0])
        sides = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise ConfigError(
                f'{place}.pipeline has {name} with {keys[0]}={value}; give '
                'it sizes that are whole numbers from 1'
            )
        yield step, keys
        known = _RESIZES | _CROPS


def _scale(
    value: int | Sequence[int], size: int, own: int
) -> int | tuple[int, ...]:
    """Multiply by ``size / own`` and round down, in exact integers."""
    if isinstance(value, int):
        return value * size // own
    return tuple(side * size // own for side in value)
