"""Training from a config file."""

from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import Runner

from mmssm.engine import PartialLoadHook
from mmssm.engine.runner.launch import prepare_launch
from mmssm.engine.runner.portable_config import make_portable
from mmssm.engine.runner.resume import prepare_resume
from mmssm.engine.runner.scoped_runner import ScopedRunner
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    load_config,
    registered,
    require,
    type_name,
)
from mmssm.utils.files import make_folder

from .annotations import check_annotations
from .loop_checks import check_hooks, check_loops, hooks_of
from .model_checks import check_channels, check_num_classes
from .optimizer_checks import check_optimizer, check_schedules
from .preflight import check_data, check_weights


def train(
    config: str,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    options: dict | None = None,
    launcher: str = 'none',
) -> None:
    """Train the model of a config.

    Args:
        config (str): Config file for mmdet, mmseg or mmpretrain.
        work_dir (str, optional): Where logs and checkpoints go. Defaults to
            the config's own, else ``work_dirs/<config's name>``.
        resume (str, optional): A checkpoint to continue from, or ``'auto'``
            for the newest one in the work directory.
        amp (bool): Train with automatic mixed precision; without a GPU, in
            bfloat16 on the CPU.
        auto_scale_lr (bool): Scale the learning rate with the batch size.
        options (dict, optional): Config values to overwrite.
        launcher (str): What started this process: ``'none'``, ``'pytorch'``,
            ``'slurm'`` or ``'mpi'``.

    Raises:
        ConfigError: The config, its data or an option is unusable.
        CheckpointError: The checkpoint to resume from is unusable.
    """
    cfg = load_config(config, options, work_dir)
    require(
        cfg,
        'model',
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        purpose='training',
    )
    make_folder(Path(cfg.work_dir), '--work-dir')
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _scale_lr(cfg)
    _use_atomic_checkpoints(cfg)
    check_loops(cfg, 'train', 'val')
    check_hooks(cfg)
    check_optimizer(cfg)
    check_schedules(cfg)
    check_data(cfg, 'train', 'val')
    check_weights(cfg)
    check_num_classes(cfg, 'train', 'val')
    check_annotations(cfg, 'train', 'val')
    prepare_launch(cfg, launcher)
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is not None:
        prepare_resume(cfg, resume)
    runner = build_runner(cfg)
    check_channels(cfg, runner.model)
    if not any(isinstance(hook, PartialLoadHook) for hook in runner.hooks):
        runner.register_hook(PartialLoadHook())
    runner.train()


def build_runner(cfg: Config) -> Runner:
    """Build mmssm's runner, or the one that ``runner_type`` names.

    The latter looks up its parts in the current default scope. The config
    becomes one that other tools can run, see :func:`make_portable`.
    """
    make_portable(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return ScopedRunner.from_cfg(cfg)


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    kind = registered(
        OPTIM_WRAPPERS, wrapper, cfg.get('default_scope'), 'OptimWrapper'
    )
    if kind not in (OptimWrapper, AmpOptimWrapper):
        raise ConfigError(
            '--amp replaces OptimWrapper, but the config uses '
            f'{type_name(wrapper.type)}; set mixed precision there'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def _scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ConfigError(
            '--auto-scale-lr needs the batch size that the learning rate was '
            'chosen for; add auto_scale_lr=dict(base_batch_size=...) to '
            f'{cfg.filename}'
        )
    cfg.auto_scale_lr.enable = True


def _use_atomic_checkpoints(cfg: Config) -> None:
    """Put AtomicCheckpointHook where the config has mmengine's own hook."""
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    cfg.default_hooks.setdefault(
        'checkpoint', dict(type='CheckpointHook', interval=1)
    )
    for _, hook in hooks_of(cfg):
        kind = registered(HOOKS, hook, cfg.get('default_scope'))
        if kind is CheckpointHook:
            hook['type'] = 'AtomicCheckpointHook'
