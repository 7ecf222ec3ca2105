"""Check that a config's files are there, before anything is built."""

import inspect
import os.path as osp
from pathlib import Path

from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.registry import DATASETS, WEIGHT_INITIALIZERS

from mmssm.checkpoint import local_file
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    leaf_datasets,
    leaf_metrics,
    registered,
    type_name,
)

from .model_checks import is_own_backbone

# The files expected in ``data_root``, by dataset type.
_LAYOUTS = dict(
    CocoDataset='COCO 2017 (https://cocodataset.org): train2017/, val2017/ '
    'and annotations/instances_{train,val}2017.json',
    ADE20KDataset='ADE20K (ADEChallengeData2016): images/{training,'
    'validation}/ and annotations/{training,validation}/',
    ImageNet='ImageNet-1k: train/<class>/*.JPEG and val/<class>/*.JPEG',
    ChangeDataset='a folder each of earlier images, later images and labels, '
    'with one name for the three files of a pair, such as '
    '{train,test}/{A,B,label} of LEVIR-CD+ (docs/change_detection.md has '
    'other datasets)',
)
_LAYOUTS['LEVIRCDPlusDataset'] = _LAYOUTS['ChangeDataset']  # its old name
_DATA_KEYS = ('ann_file', 'data_prefix')


def check_data(cfg: Config, *splits: str) -> None:
    """Raise a one-line error if a dataset's files are missing.

    Datasets that build or download their own data and paths on remote
    storage are not checked.

    Args:
        cfg (Config): The config to run.
        *splits (str): The splits used: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ConfigError: Names the first missing path, what is expected there and
            the option that changes the path.
    """
    scope = cfg.get('default_scope')
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        option = f'{split}_dataloader.dataset'
        built = False
        for dataset, place in leaf_datasets(loader.dataset, option):
            if _builds_itself(dataset, scope):
                built = True
            else:
                _check_dataset(dataset, place)
        if not built:
            _check_evaluator(cfg, split)


def check_weights(cfg: Config) -> None:
    """Raise a one-line error if the backbone's pretrained file is missing.

    Also if mmseg's ``model.pretrained`` is still that of another backbone.
    Addresses are not checked: the loader does that.

    Args:
        cfg (Config): The config to train.

    Raises:
        ConfigError: Names the file, the README that tells where to get it,
            if there is one, and the option that changes the path.
    """
    option = 'model.backbone.init_cfg'
    backbone = cfg.model.get('backbone') or {}
    if cfg.model.get('pretrained') and is_own_backbone(cfg, backbone):
        raise ConfigError(
            f'model.pretrained={cfg.model.pretrained!r} is for the backbone '
            'of the inherited config; set model.pretrained=None, and the '
            f'weights of {type_name(backbone.type)} with {option}'
        )
    init = backbone.get('init_cfg')
    scope = cfg.get('default_scope')
    several = isinstance(init, (list, tuple))
    for i, part in enumerate(init if several else [init]):
        place = f'{option}.{i}' if several else option
        if not isinstance(part, dict) or (
            registered(WEIGHT_INITIALIZERS, part, scope) is not PretrainedInit
        ):
            continue
        checkpoint = part.get('checkpoint')
        path = local_file(checkpoint) if checkpoint else None
        if path is None or path.exists():
            continue
        readme = _readme_about(path, cfg)
        source = f'; {readme} tells where to get it' if readme else ''
        raise ConfigError(
            f'pretrained weights not found: {path} ({option}){source}; put '
            f'them there, point elsewhere with --cfg-options {place}'
            f'.checkpoint=/path/to/file, or start untrained with {option}=None'
        )


def _readme_about(file: Path, cfg: Config) -> Path | None:
    """Find a README that names the file, first beside the config."""
    configs = (Path(__file__).parents[1] / '.mim' / 'configs').resolve()
    pages = sorted(configs.glob('*/README.md'))
    if cfg.filename:
        pages.insert(0, Path(cfg.filename).with_name('README.md'))
    return next(
        (
            page
            for page in pages
            if page.is_file() and file.name in page.read_text(errors='ignore')
        ),
        None,
    )


def _builds_itself(dataset: dict, scope: str | None) -> bool:
    kind = registered(DATASETS, dataset, scope)
    if kind is None:
        return False  # building it will say that the type is unknown
    if getattr(kind, 'builds_its_files', False):
        return True
    # mmpretrain's CIFAR and MNIST have an option to download themselves.
    return 'download' in inspect.signature(kind).parameters


def _check_dataset(dataset: dict, place: str) -> None:
    if dataset.get('backend_args') is not None:
        return
    root = dataset.get('data_root') or ''
    _check_path(root, dataset, f'{place}.data_root')
    for key in _DATA_KEYS:
        value = dataset.get(key)
        parts = value if isinstance(value, dict) else {None: value}
        for name, path in parts.items():
            if isinstance(path, str) and path:
                option = f'{place}.{key}' + (f'.{name}' if name else '')
                _check_path(
                    osp.join(root, path),
                    dataset,
                    option,
                    root,
                    f'{place}.data_root',
                )


def _check_path(
    path: str,
    dataset: dict,
    option: str,
    root: str = '',
    root_option: str | None = None,
) -> None:
    if not path or '://' in path or osp.exists(path):
        return
    kind = type_name(dataset['type'])
    # A set with classes of its own has a layout of its own.
    layout = None if dataset.get('metainfo') else _LAYOUTS.get(kind)
    expected = f'; expected there: {layout}' if layout else ''
    if layout and root_option:
        expected = f'; expected in {root}: {layout}'
    raise ConfigError(
        f'data not found: {path} ({kind}, {option}){expected}; put or link '
        'the data there, or point elsewhere with --cfg-options '
        f'{root_option or option}=/path/to/data'
    )


def _check_evaluator(cfg: Config, split: str) -> None:
    """Metrics such as CocoMetric read an annotation file of their own."""
    for metric, place in leaf_metrics(cfg, split):
        path = metric.get('ann_file')
        if path and '://' not in path and not osp.exists(path):
            raise ConfigError(
                f'annotation file {path} of {type_name(metric["type"])} '
                f'({place}) not found; put it there, or point elsewhere with '
                f'--cfg-options {place}.ann_file=/path/to/file'
            )
