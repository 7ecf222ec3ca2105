"""Read configs and apply command-line options."""

import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry

from .errors import ConfigError, one_line, warn
from .imports import import_custom

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


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
    except (
        SyntaxError,
        OSError,
        ImportError,
        KeyError,
        AttributeError,
        TypeError,
        NameError,
    ) as error:
        raise ConfigError(
            f'config {path} cannot be read: {type(error).__name__}: '
            f'{one_line(error)}'
        ) from error
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
    _import_custom_modules(cfg, path)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    _complete_loaders(cfg)
    return cfg


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


def leaf_metrics(
    evaluator: object, place: str = ''
) -> Iterator[tuple[ConfigDict, str]]:
    """Find the metrics of an evaluator's config, also in wrappers.

    Args:
        evaluator (object): A metric's config, a list of some, or an evaluator
            with ``metrics``, such as mmdet's MultiDatasetsEvaluator.
        place (str): Its key in the config, e.g. ``test_evaluator``.

    Yields:
        tuple[ConfigDict, str]: Each metric and its key in the config.
    """
    if isinstance(evaluator, (list, tuple)):
        for number, part in enumerate(evaluator):
            yield from leaf_metrics(part, f'{place}.{number}')
    elif isinstance(evaluator, dict) and 'metrics' in evaluator:
        yield from leaf_metrics(evaluator['metrics'], f'{place}.metrics')
    elif isinstance(evaluator, dict):
        yield evaluator, place


def complete_model(cfg: Config) -> ConfigDict:
    """The config's ``model`` with its ``data_preprocessor``.

    mmpretrain's configs set it beside the model, where only mmengine's Runner
    finds it.
    """
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg.model


def require(cfg: Config, *keys: str, purpose: str) -> None:
    """Raise a ConfigError unless the config sets all of ``keys``."""
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise ConfigError(
            f'config {cfg.filename} sets no {" or ".join(missing)}, which '
            f'{purpose} needs; add it to the config'
        )


def registered(
    registry: Registry, settings: dict, scope: str | None
) -> type | None:
    """The class that a config's part names; None if there is none.

    Args:
        registry (Registry): One of mmengine's root registries.
        settings (dict): The part, with a ``type``.
        scope (str, optional): The config's ``default_scope``.
    """
    kind = settings.get('type')
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(kind)
    return kind if inspect.isclass(kind) else None


def type_name(kind: str | type) -> str:
    """The name of a config's ``type`` without its scope or module."""
    kind = kind if isinstance(kind, str) else kind.__name__
    return kind.rpartition('.')[2]
