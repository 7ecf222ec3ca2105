"""Read configs and apply command-line options."""

import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry

from .errors import ConfigError, one_line, warn
from .imports import import_custom

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_LOOPS = ('train_cfg', 'val_cfg', 'test_cfg')


def load_config(
    path: str,
    options: dict | None = None,
    work_dir: str | None = None,
) -> Config:
    """Read a config, apply ``--cfg-options`` and set its ``work_dir``.

    Args:
        path (str): A config file in the old or new style of mmengine.
        options (dict, optional): Values to overwrite, keys with dots.
        work_dir (str, optional): The folder for results. Defaults to the
            config's own ``work_dir``, else ``work_dirs/<config's name>``.

    Returns:
        Config: The config; its ``custom_imports`` are imported, from Python's
        path, else from the config's folder or the current one.

    Raises:
        ConfigError: The file is missing or wrong, a module that it names
            cannot be imported, or an option does not fit.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config {path} does not exist; check the path')
    try:
        # Custom modules are imported below: options may change them, and a
        # defect in one of them must keep its traceback.
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter('always', DeprecationWarning)
            cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:  # whatever the config's own code raises
        raise _unreadable(path, error) from error
    try:
        _import_named(cfg)
    except ImportError as error:
        raise _unreadable(path, error) from error
    for warning in noted:
        text = str(warning.message)
        if text.startswith('The config file'):  # it was renamed
            warn(text)
        else:
            warnings.warn_explicit(
                text, warning.category, warning.filename, warning.lineno
            )
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise ConfigError(
            f'--cfg-options does not fit {path}: {one_line(error)}'
        ) from error
    _check_parts(cfg)
    _import_custom_modules(cfg, path)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    _complete_loaders(cfg)
    return cfg


def _unreadable(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f'config {path} cannot be read: {type(error).__name__}: '
        f'{one_line(error)}'
    )


def _import_named(cfg: Config) -> None:
    """Import what a config of Python's imports names.

    mmengine imports an object when it is first asked for, which may be late.
    """
    waiting = [cfg[key] for key in cfg if key not in cfg._imported_names]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)


def _check_parts(cfg: Config) -> None:
    for key in ('model', 'optim_wrapper', *_LOADERS, *_LOOPS):
        if not isinstance(cfg.get(key), (dict, type(None))):
            raise ConfigError(
                f'{key} of {cfg.filename} must be a dict or None, got '
                f'{cfg[key]!r}'
            )
    for key in _LOADERS:
        dataset = (cfg.get(key) or {}).get('dataset', {})
        if not isinstance(dataset, dict):
            raise ConfigError(
                f'{key}.dataset of {cfg.filename} must be a dict, got '
                f'{dataset!r}'
            )


def _import_custom_modules(cfg: Config, path: str) -> None:
    given = cfg.get('custom_imports')
    if not given:
        return
    known = {'imports', 'allow_failed_imports'}
    if not isinstance(given, dict) or not {'imports'} <= set(given) <= known:
        raise ConfigError(
            f'custom_imports of {path} must be a dict of imports and, if need '
            f"be, allow_failed_imports, got {given}; write dict(imports=['my_"
            "module'])"
        )
    import_custom(
        given.imports,
        folders=(Path(path).resolve().parent, Path.cwd()),
        allow_failed=given.get('allow_failed_imports', False),
        source=f'custom_imports of {path}',
    )


def _complete_loaders(cfg: Config) -> None:
    """Add the loader settings that mmpretrain's configs leave to its tools.

    mmpretrain stacks samples with ``default_collate``; mmengine's default
    gives lists.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in _LOADERS:
        if cfg.get(name) is not None:
            cfg[name].setdefault('collate_fn', dict(type='default_collate'))
            cfg[name].setdefault('pin_memory', torch.cuda.is_available())
            cfg[name].setdefault(
                'persistent_workers', cfg[name].get('num_workers', 0) > 0
            )


def leaf_datasets(
    dataset: ConfigDict, place: str = ''
) -> Iterator[tuple[ConfigDict, str]]:
    """Find the datasets that read files, also in wrappers.

    Args:
        dataset (ConfigDict): A dataset's config.
        place (str): Its key in the config, e.g. ``test_dataloader.dataset``.

    Yields:
        tuple[ConfigDict, str]: Each such dataset and its key in the config.
    """
    if 'dataset' in dataset:
        yield from leaf_datasets(dataset['dataset'], f'{place}.dataset')
    elif 'datasets' in dataset:
        for number, part in enumerate(dataset['datasets']):
            yield from leaf_datasets(part, f'{place}.datasets.{number}')
    else:
        yield dataset, place


def complete_model(cfg: Config) -> ConfigDict:
    """The config's ``model`` with its ``data_preprocessor``.

    mmpretrain's configs set it beside the model, where only mmengine's Runner
    finds it. The model can be built in one process.
    """
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg.model = in_one_process(cfg.model)
    return cfg.model


def in_one_process(model: ConfigDict) -> ConfigDict:
    """A model's config with PyTorch's SyncBN in place of mmcv's.

    mmcv's cannot be built without a process group. Their weights have the
    same names, and mmengine and the libraries make BN of both.

    Args:
        model (ConfigDict): The config of a model; it is not changed.
    """
    if isinstance(model, (list, tuple)):
        return type(model)(map(in_one_process, model))
    if not isinstance(model, dict):
        return model
    model = type(model)({k: in_one_process(v) for k, v in model.items()})
    if type_name(model.get('type')) in ('MMSyncBN', 'SyncBatchNorm'):
        model['type'] = 'SyncBN'
        model.pop('stats_mode', None)
        model.pop('group', None)
    return model


def require(cfg: Config, *keys: str, purpose: str) -> None:
    """Raise a ConfigError unless the config sets all of ``keys``."""
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise ConfigError(
            f'config {cfg.filename} sets no {" or ".join(missing)}, which '
            f'{purpose} needs; add it to the config'
        )


def metrics_of(cfg: Config, split: str) -> list[ConfigDict]:
    """The configs of the metrics that evaluate a split.

    As :func:`leaf_metrics`, without their keys.
    """
    return [metric for metric, _ in leaf_metrics(cfg, split)]


def leaf_metrics(cfg: Config, split: str) -> Iterator[tuple[ConfigDict, str]]:
    """Find the metrics that evaluate a split, also inside an evaluator.

    Args:
        cfg (Config): The config.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Yields:
        tuple[ConfigDict, str]: Each metric and its key in the config; none
        without an evaluator.

    Raises:
        ConfigError: The evaluator is not a dict, nor a list of dicts, or one
            of them has no ``type``.
    """
    option = f'{split}_evaluator'
    if cfg.get(option) is None:
        return
    for metric, place in _leaves(cfg[option], option):
        if not isinstance(metric, dict) or not metric.get('type'):
            raise ConfigError(
                f'{option} must be a metric, such as '
                "dict(type='CocoMetric', ...), or a list of metrics, got "
                f'{metric!r}'
            )
        yield metric, place


def _leaves(part: object, place: str) -> Iterator[tuple[Any, str]]:
    if isinstance(part, (list, tuple)):
        for number, metric in enumerate(part):
            yield from _leaves(metric, f'{place}.{number}')
    elif isinstance(part, dict) and 'metrics' in part:
        yield from _leaves(part['metrics'], f'{place}.metrics')
    else:
        yield part, place


def registered(
    registry: Registry,
    settings: dict,
    scope: str | None,
    default: str | None = None,
) -> type | None:
    """The class that a config's part names; None if there is none.

    Code that depends on a part's ``type`` must call this function, or
    :func:`type_name` if the class may be missing: a type can be a class, a
    bare name, one with a scope (``'mmdet.ResNet'``) or one with a module
    (``'mmengine.hooks.CheckpointHook'``).

    Args:
        registry (Registry): One of mmengine's root registries.
        settings (dict): The part, with a ``type``.
        scope (str, optional): The config's ``default_scope``.
        default (str, optional): The type of a part that names none.
    """
    kind = settings.get('type', default)
    # A part of another library's base has that library's scope.
    scope = settings.get('_scope_', scope)
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as scoped:
            try:
                kind = scoped.get(kind)
            except RuntimeError:  # its module cannot be imported
                return None
    return kind if inspect.isclass(kind) else None


def refuse_unknown(
    registry: Registry, settings: dict, scope: str | None
) -> None:
    """Raise a ConfigError if a config's part names what is not registered.

    Args:
        registry (Registry): One of mmengine's root registries.
        settings (dict): The part, with a ``type``.
        scope (str, optional): The config's ``default_scope``.
    """
    kind = settings.get('type')
    scope = settings.get('_scope_', scope)
    with registry.switch_scope_and_registry(scope) as scoped:
        if isinstance(kind, str) and scoped.get(kind) is None:
            place = f'{scoped.scope}::{scoped.name}'
            raise ConfigError(
                one_line(KeyError(f'{kind} is not in the {place} registry'))
            )


def type_name(kind: str | type | None) -> str:
    """The name of a config's ``type`` without its scope or module.

    Also of a function that stands for a type; '' where there is none.
    """
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]
