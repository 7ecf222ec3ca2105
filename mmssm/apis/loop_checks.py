"""Check what a config says about its loops, before anything is built."""

import difflib
import inspect
import logging
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.registry import FUNCTIONS, HOOKS, LOOPS, METRICS
from mmengine.runner import IterBasedTrainLoop, Priority
from torch.utils.data import DataLoader

from mmssm.utils import ConfigError
from mmssm.utils.config import (
    leaf_datasets,
    leaf_metrics,
    refuse_unknown,
    registered,
)
from mmssm.utils.errors import did_you_mean, warn

from .metric_names import MetricNames, is_top_k

# mmengine takes each of these whole or not at all.
_LOOPS = dict(
    train=('train_dataloader', 'train_cfg', 'optim_wrapper'),
    val=('val_dataloader', 'val_cfg', 'val_evaluator'),
    test=('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# The keys of a loader beside the arguments of PyTorch's.
_LOADER_KEYS = ('num_batch_per_epoch', 'disable_subprocess_warning')
_DEFAULT_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)
# A name this similar to a default hook's (0 to 1) is taken for a misspelling.
_ALIKE = 0.8


def check_loops(cfg: Config, *splits: str) -> None:
    """Refuse loaders, loops and evaluators that cannot work.

    Args:
        cfg (Config): The config to run.
        *splits (str): The splits used: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ConfigError: Names the option, and what to set it to.
    """
    for keys in _LOOPS.values():
        _check_complete(cfg, keys)
    for split in splits:
        _check_topk(cfg, split)
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            scope = cfg.get('default_scope')
            _check_loader(loader, f'{split}_dataloader', scope)
    if 'train' in splits and cfg.get('train_cfg') is not None:
        _check_train_cfg(cfg.train_cfg)
        _check_numbers(cfg)
    _check_log_level(cfg)


def check_hooks(cfg: Config) -> None:
    """Refuse parts that are not hooks, and hooks that need a missing metric.

    Args:
        cfg (Config): The config to train.

    Raises:
        ConfigError: Names the option, and the metrics that there are.
    """
    for name in cfg.get('default_hooks') or ():
        missing = [n for n in _DEFAULT_HOOKS if n not in cfg.default_hooks]
        close = difflib.get_close_matches(name, missing, 1, _ALIKE)
        if close and name not in _DEFAULT_HOOKS:
            raise ConfigError(
                f'default_hooks.{name} is another hook than the default one '
                f"{close[0]}; did you mean '{close[0]}'?"
            )
    for option, name in _awaited_metrics(cfg):
        if cfg.get('val_dataloader') is None:
            warn(f'{option} has no effect: the config validates nothing')
            continue
        names = MetricNames(cfg, 'val')
        if not names.may_have(name):
            shown = [*names.known, *(f'{p}...' for p in names.open_prefixes)]
            raise ConfigError(
                f'{option}={name!r} is none of the metrics of val_evaluator, '
                f'{", ".join(shown)}{did_you_mean(name, names.known)}'
            )


def hooks_of(cfg: Config) -> Iterator[tuple[str, dict]]:
    """The hooks of a config.

    Args:
        cfg (Config): The config.

    Yields:
        tuple[str, dict]: A hook's key and its config.

    Raises:
        ConfigError: ``custom_hooks`` is not a list, ``default_hooks`` not a
            dict, or one of them has something else than hooks.
    """
    default = cfg.get('default_hooks') or {}
    custom = cfg.get('custom_hooks') or []
    if not isinstance(default, dict):
        raise ConfigError(
            'default_hooks must be a dict of hooks by name, such as '
            f"dict(logger=dict(type='LoggerHook')), got {default!r}"
        )
    if not isinstance(custom, (list, tuple)):
        raise ConfigError(
            "custom_hooks must be a list of hooks, such as [dict(type='"
            f"EMAHook')], got {custom!r}"
        )
    found = {f'default_hooks.{name}': hook for name, hook in default.items()}
    found |= {f'custom_hooks.{i}': hook for i, hook in enumerate(custom)}
    for option, hook in found.items():
        if hook is None and option.startswith('default_hooks.'):
            continue
        if not isinstance(hook, dict) or not hook.get('type'):
            raise ConfigError(
                f'{option} must be a dict with the type of a hook, such as '
                f"dict(type='CheckpointHook'), got {hook!r}"
            )
        priority = hook.get('priority')
        if isinstance(priority, str):
            known = Priority.__members__
            if priority.upper() not in known:
                raise ConfigError(
                    f'{option}.priority={priority!r} is none of '
                    f'{", ".join(known)}{did_you_mean(priority, known)}'
                )
        yield option, hook


def trains_by_iterations(cfg: Config) -> bool:
    """Whether ``train_cfg`` counts iterations, not epochs."""
    loop = cfg.train_cfg
    if 'type' not in loop:
        return not loop.get('by_epoch', True)
    kind = registered(LOOPS, loop, cfg.get('default_scope'))
    return kind is not None and issubclass(kind, IterBasedTrainLoop)


def _check_complete(cfg: Config, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if cfg.get(key) is None]
    if missing and len(missing) < len(keys):
        there = [key for key in keys if key not in missing]
        raise ConfigError(
            f'the config sets {" and ".join(there)}, but not '
            f'{" and ".join(missing)}; they belong together: add what is '
            'missing, or set all of them to None'
        )


def _check_topk(cfg: Config, split: str) -> None:
    """Top-5 accuracy needs at least five classes."""
    head = (cfg.get('model') or {}).get('head')
    classes = head.get('num_classes') if isinstance(head, dict) else None
    for metric, place in leaf_metrics(cfg, split):
        kind = registered(METRICS, metric, cfg.get('default_scope'))
        topk = metric.get('topk', 1)
        most = max(topk) if isinstance(topk, (list, tuple)) else topk
        if is_top_k(kind) and isinstance(classes, int) and most > classes:
            raise ConfigError(
                f'{place} asks for the top-{most} accuracy, but '
                f'model.head.num_classes is {classes}; leave {most} out of '
                f'{place}.topk'
            )


def _check_loader(loader: dict, option: str, scope: str | None) -> None:
    known = [*inspect.signature(DataLoader).parameters, *_LOADER_KEYS]
    unknown = sorted(set(loader) - set(known))
    if unknown:
        raise ConfigError(
            f'{option} has no setting {unknown[0]!r}'
            f'{did_you_mean(unknown[0], known) or "; leave it out"}'
        )
    for key, example in (
        ('dataset', "dict(type='CocoDataset', ...)"),
        ('sampler', "dict(type='DefaultSampler', shuffle=True)"),
    ):
        if not isinstance(loader.get(key), dict):
            raise ConfigError(
                f'{option}.{key} must be a dict, such as {example}, got '
                f'{loader.get(key)!r}'
            )
    for dataset, place in leaf_datasets(loader.dataset, f'{option}.dataset'):
        _check_dataset(dataset, place)
    for key in ('collate_fn', 'worker_init_fn'):
        if isinstance(loader.get(key), dict):
            refuse_unknown(FUNCTIONS, loader[key], scope)
    if loader.get('num_workers', 0) != 0:
        return
    for key, nothing in (
        ('persistent_workers', False),
        ('prefetch_factor', None),
    ):
        if loader.get(key):
            raise ConfigError(
                f'{option}.{key}={loader[key]} is for loading processes, but '
                f'num_workers is 0; set {option}.{key}={nothing}, or '
                'num_workers to their number'
            )


def _check_dataset(dataset: dict, place: str) -> None:
    if not dataset.get('type'):
        raise ConfigError(
            f"{place} has no type; add one, such as type='CocoDataset'"
        )
    pipeline = dataset.get('pipeline') or []
    steps = pipeline if isinstance(pipeline, (list, tuple)) else [pipeline]
    for number, step in enumerate(steps):
        if isinstance(pipeline, dict) or not (
            callable(step) or (isinstance(step, dict) and step.get('type'))
        ):
            raise ConfigError(
                f'{place}.pipeline must be a list of dicts with a type, got '
                f'{step!r} at {number}'
            )


def _check_numbers(cfg: Config) -> None:
    """Refuse what mmengine takes and stumbles over later."""
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        value = cfg.train_cfg.get(key, 1)
        if not isinstance(value, (int, float)) or value < 1:
            raise ConfigError(
                f'train_cfg.{key} must be a whole number from 1, got {value!r}'
            )
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not isinstance(seed, int):
        raise ConfigError(f'randomness.seed must be an int, got {seed!r}')


def _check_log_level(cfg: Config) -> None:
    level = cfg.get('log_level', 'INFO')
    levels = ('DEBUG', 'INFO', 'WARNING', 'ERROR')
    # A number for a level's name, a text for any other.
    known = not isinstance(logging.getLevelName(level), str)
    if isinstance(level, str) and not known:
        raise ConfigError(
            f'log_level={level!r} is none of {", ".join(levels)}'
            f'{did_you_mean(level.upper(), levels)}'
        )


def _check_train_cfg(loop: dict) -> None:
    if ('type' in loop) == ('by_epoch' in loop):
        found = 'both' if 'type' in loop else 'neither'
        raise ConfigError(
            f'train_cfg must set one of type and by_epoch, but sets {found}; '
            "write dict(type='EpochBasedTrainLoop', max_epochs=12) or "
            "dict(type='IterBasedTrainLoop', max_iters=160000)"
        )


def _awaited_metrics(cfg: Config) -> Iterator[tuple[str, str]]:
    """The options that name metrics, and the names."""
    scope = cfg.get('default_scope')
    for option, hook in hooks_of(cfg):
        kind = registered(HOOKS, hook, scope)
        for base, key in (
            (CheckpointHook, 'save_best'),
            (EarlyStoppingHook, 'monitor'),
        ):
            given = hook.get(key)
            if kind is None or not issubclass(kind, base) or not given:
                continue
            names = given if isinstance(given, (list, tuple)) else [given]
            for name in names:
                if name != 'auto':
                    yield f'{option}.{key}', name
