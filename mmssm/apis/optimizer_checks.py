"""Check what a config says about its optimizer and its schedules."""

import copy
import inspect
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from mmssm.engine.optimizers.cpu_amp_optim_wrapper import in_cpu_amp
from mmssm.utils import ConfigError
from mmssm.utils.config import refuse_unknown, registered, type_name
from mmssm.utils.errors import one_line, warn

from .loop_checks import trains_by_iterations
from .model_checks import is_own_backbone

# MMDetection's and MMSegmentation's, which know other backbones only.
_FOREIGN_LAYER_DECAY = (
    'LearningRateDecayOptimizerConstructor',
    'LayerDecayOptimizerConstructor',
)
_EPOCH_LENGTH = 1000  # stands for that of the data, which are not read yet


def check_optimizer(cfg: Config) -> None:
    """Refuse an optimizer that cannot be built, or multiplies unset values.

    Args:
        cfg (Config): The config to train.

    Raises:
        ConfigError: Names the option, and what to set it to.
    """
    check_layer_decay(cfg)
    if not torch.cuda.is_available():
        in_cpu_amp(cfg.optim_wrapper, cfg.get('default_scope'))
    optimizer = cfg.optim_wrapper.get('optimizer')
    if optimizer is None and 'constructor' in cfg.optim_wrapper:
        return  # it makes several optimizers
    if not isinstance(optimizer, dict) or not optimizer.get('type'):
        raise ConfigError(
            'optim_wrapper.optimizer must be a dict with a type, such as '
            f"dict(type='AdamW', lr=1e-4), got {optimizer!r}"
        )
    _check_multipliers(cfg.optim_wrapper)
    _check_clipping(cfg.optim_wrapper.get('clip_grad'))
    _build_alone(cfg)


def check_schedules(cfg: Config) -> None:
    """Refuse schedules that cannot be built.

    Warns of those that end after the training.

    Args:
        cfg (Config): The config to train, which :func:`check_optimizer`
            passed.

    Raises:
        ConfigError: Names the schedule and what is wrong.
    """
    given = cfg.get('param_scheduler')
    several = isinstance(given, (list, tuple))
    if isinstance(given, dict) and 'type' not in given:
        return  # of several optimizers
    optimizer = cfg.optim_wrapper.get('optimizer')
    if given is None or not isinstance(optimizer, dict):
        return
    for number, schedule in enumerate(given if several else [given]):
        option = f'param_scheduler.{number}' if several else 'param_scheduler'
        if not isinstance(schedule, dict) or not schedule.get('type'):
            raise ConfigError(
                f'{option} must be a dict with a type, such as '
                f"dict(type='CosineAnnealingLR'), got {schedule!r}"
            )
        _check_schedule(cfg, schedule, option)


def check_layer_decay(cfg: Config) -> None:
    """Raise a one-line error if layers' rates are left to another library.

    MMDetection's and MMSegmentation's constructors have lists of backbones,
    and end in a NotImplementedError without a message for all others.

    Args:
        cfg (Config): The config to train.

    Raises:
        ConfigError: The backbone is one of mmssm's, or a rate is set that
            no constructor reads; tells what to write instead.
    """
    name = type_name(cfg.optim_wrapper.get('constructor') or '')
    settings = cfg.optim_wrapper.get('paramwise_cfg') or {}
    unused = {'layer_decay_rate', 'stem_lr_mult'} & set(settings)
    if unused and name in ('', 'DefaultOptimWrapperConstructor'):
        raise ConfigError(
            f'optim_wrapper.paramwise_cfg sets {sorted(unused)[0]}, which '
            'only a constructor for it reads; set optim_wrapper.constructor='
            "'LayerDecayOptimWrapperConstructor'"
        )
    backbone = cfg.model.get('backbone')
    if name not in _FOREIGN_LAYER_DECAY or not backbone:
        return
    if not is_own_backbone(cfg, backbone):
        return
    rate = settings.get('decay_rate') or settings.get('layer_decay_rate')
    rate = rate or 0.9
    raise ConfigError(
        f'{name} does not know the layers of {type_name(backbone.type)}; '
        'write optim_wrapper.constructor='
        "'LayerDecayOptimWrapperConstructor' and "
        f'paramwise_cfg=dict(layer_decay_rate={rate}, flat_decay_mult=0.0), '
        'with custom_keys if there are any, and with _delete_=True if the '
        'config inherits another paramwise_cfg'
    )


def _multipliers(settings: dict) -> Iterator[tuple[str, str]]:
    """The options of ``paramwise_cfg`` and what they multiply."""
    for key in settings:
        if key.endswith('_decay_mult'):
            yield key, 'weight_decay'
        elif key.endswith('_lr_mult'):
            yield key, 'lr'
    for name, part in (settings.get('custom_keys') or {}).items():
        # mmengine multiplies the rate even where only the decay is set.
        yield f'custom_keys[{name!r}]', 'lr'
        if 'decay_mult' in part:
            yield f'custom_keys[{name!r}].decay_mult', 'weight_decay'


def _check_multipliers(wrapper: dict) -> None:
    for option, factor in _multipliers(wrapper.get('paramwise_cfg') or {}):
        if wrapper['optimizer'].get(factor) is None:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.{option} multiplies the '
                f"optimizer's {factor}, which is not set; set "
                f'optim_wrapper.optimizer.{factor}, or leave {option} out'
            )


def _check_clipping(settings: object) -> None:
    if not isinstance(settings, dict):
        return  # mmengine refuses all but None
    by_value = settings.get('type') == 'value'
    clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
    given = {k: v for k, v in settings.items() if k != 'type'}
    try:
        inspect.signature(clip).bind([], **given)
    except TypeError as error:
        known = [n for n in inspect.signature(clip).parameters][1:]
        raise ConfigError(
            f'optim_wrapper.clip_grad: {one_line(error)}; it takes '
            f'{", ".join(known)}'
        ) from error


def _build_alone(cfg: Config) -> torch.optim.Optimizer:
    """The optimizer of one matrix, or AdamW for one that is not PyTorch's."""
    settings = cfg.optim_wrapper.optimizer
    parameter = nn.Parameter(torch.zeros(1, 1))
    refuse_unknown(OPTIMIZERS, settings, cfg.get('default_scope'))
    kind = registered(OPTIMIZERS, settings, cfg.get('default_scope'))
    if kind is None or not kind.__module__.startswith('torch.optim'):
        return torch.optim.AdamW([parameter], lr=1.0)
    for key in ('lr', 'weight_decay', 'momentum', 'eps'):
        value = settings.get(key, 0)
        if not isinstance(value, (int, float)):
            in_yaml = ' (in YAML 1.0e-4, not 1e-4)'
            raise ConfigError(
                f'optim_wrapper.optimizer.{key} must be a number, got '
                f'{value!r}{in_yaml if isinstance(value, str) else ""}'
            )
    try:
        return OPTIMIZERS.build(dict(settings, params=[parameter]))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f'optim_wrapper.optimizer: {one_line(error)}'
        ) from error


def _check_schedule(cfg: Config, schedule: dict, option: str) -> None:
    kind = registered(PARAM_SCHEDULERS, schedule, cfg.get('default_scope'))
    if kind is None or not kind.__module__.startswith('mmengine.'):
        return
    by_iterations = trains_by_iterations(cfg)
    in_epochs = schedule.get('by_epoch', True)
    unit = 'epoch' if in_epochs else 'iteration'
    length = cfg.train_cfg.get('max_epochs' if in_epochs else 'max_iters')
    if by_iterations and in_epochs:
        length = 1 if not schedule.get('convert_to_iter_based') else None
    built = copy.deepcopy(dict(schedule))
    default = dict(end=length) if length and 'end' not in built else {}
    try:
        PARAM_SCHEDULERS.build(
            built | default,
            default_args=dict(
                optimizer=_build_alone(cfg), epoch_length=_EPOCH_LENGTH
            ),
        )
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        so = f' (training ends after {unit} {length})' if default else ''
        raise ConfigError(f'{option}: {one_line(error)}{so}') from error
    if by_iterations and in_epochs and length:
        warn(
            f'{option} counts epochs, but training counts iterations, so that '
            'it changes nothing; set by_epoch=False'
        )
    elif length and 'end' in schedule and schedule['end'] > length:
        warn(
            f'{option} goes to {unit} {schedule["end"]}, but training ends '
            f'after {unit} {length}'
        )
