"""The size of the images that a classifier's config tests with."""

import copy
from collections.abc import Iterator, Sequence

from mmengine.config import Config

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, type_name

# Which arguments of mmpretrain's transforms make the size of an image; the
# first one is the size itself.
_RESIZES = dict(
    Resize=('scale',),
    ResizeEdge=('scale',),
    EfficientNetCenterCrop=('crop_size', 'crop_padding'),
)
_CROPS = dict(CenterCrop=('crop_size',))
# What mmpretrain takes if a config leaves it out.
_DEFAULTS = dict(crop_padding=32)
_SET = 'test_dataloader.dataset'


def own_size(cfg: Config) -> int:
    """The height and width of the images that the config tests with.

    Args:
        cfg (Config): A config with a ``test_dataloader``.

    Raises:
        ConfigError: The test pipeline sets no size, one that is not square,
            or different ones for the parts of the test set.
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

    Everything that makes the size, and precedes it, grows or shrinks by the
    same factor, rounded down, so that as much of the image is cropped as
    before: 256 and 224 become 438 and 384. A batch holds no more pixels than
    the config's own and no more images, but at least one.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        size (int): Height and width of the images, pixels.

    Returns:
        dict: ``test_dataloader.batch_size``, the whole pipeline of each part
        of the test set, and that loading processes end with it.

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
        # Whole, since single values could not be set in a pipeline that is
        # itself among the user's options.
        options[f'{place}.pipeline'] = pipeline
    # Processes that outlive their one pass would end among the next size's.
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
            f'{key}={tuple(value)}); one number is to be their size, so give '
            'both sides the same'
        )
    return sides.pop()


def _size_transforms(
    pipeline: Sequence[dict], place: str
) -> Iterator[tuple[dict, tuple[str, ...]]]:
    """The transforms that make the images' size, and their arguments.

    A crop before the first resizing is of the image's own pixels and stays.
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
                f'{place}.pipeline has {name} with {keys[0]}={value}; the '
                'sizes to change must be there, whole numbers from 1'
            )
        yield step, keys
        known = _RESIZES | _CROPS


def _scale(
    value: int | Sequence[int], size: int, own: int
) -> int | tuple[int, ...]:
    """Pixels times ``size / own``, rounded down: without a float's errors."""
    if isinstance(value, int):
        return value * size // own
    return tuple(side * size // own for side in value)
