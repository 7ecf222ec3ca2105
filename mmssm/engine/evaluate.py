"""Evaluating a checkpoint from a config file."""

import os

from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size, is_main_process
from mmengine.registry import METRICS

from mmssm.checkpoint import locate_checkpoint

from .classes import check_classes
from .config import (
    check_scope,
    leaf_datasets,
    load_config,
    reads_pairs,
    require,
)
from .distributed import prepare_launch
from .errors import ConfigError, warn
from .preflight import check_data
from .results import AUGMENTED, PLAIN, as_table, identify, keep_result
from .strict_load import StrictLoadHook
from .train import build_runner


def evaluate(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    options: dict | None = None,
    launcher: str = 'none',
) -> dict:
    """Evaluate a checkpoint on the config's test set.

    Args:
        config (str): Config file of mmdet, mmseg or mmpretrain's kind.
        checkpoint (str): A file or address: of mmssm, or as the original
            authors released it. It must fit the model exactly.
        work_dir (str, optional): Where the log goes. Defaults to the
            config's own, else ``work_dirs/<config's name>``.
        out (str, optional): A ``.pkl`` file for the predictions.
        show_dir (str, optional): A folder for pictures of the predictions.
        tta (bool): Use the config's ``tta_model`` and ``tta_pipeline``. The
            table of results that is printed then shows those without, too,
            if the work directory has some of the same model.
        options (dict, optional): Config values to overwrite.
        launcher (str): What started this process: ``'none'``, ``'pytorch'``,
            ``'slurm'`` or ``'mpi'``.

    Returns:
        dict: The metrics.

    Raises:
        ConfigError: The config, its data or an option is unusable.
        CheckpointError: The checkpoint is unusable or of another model.
    """
    checkpoint = locate_checkpoint(checkpoint)
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise ConfigError(
            f'--out {out}: the predictions are written as a '
            'pickle; give a name that ends in .pkl'
        )
    cfg = load_config(config, options, work_dir)
    require(
        cfg,
        'model',
        'test_dataloader',
        'test_cfg',
        'test_evaluator',
        purpose='testing',
    )
    check_classes(cfg)
    cfg.load_from = checkpoint
    cfg.resume = False
    identity = identify(cfg, checkpoint)
    if show_dir is not None:
        _draw_into(cfg, os.path.abspath(show_dir), tta)
    if tta:
        _use_tta(cfg)
    check_data(cfg, 'test')
    prepare_launch(cfg, launcher)
    if show_dir is not None and get_world_size() > 1:
        warn('--show-dir: of several processes only the first one draws')
    runner = build_runner(cfg)
    runner.register_hook(StrictLoadHook())
    if out is not None:
        runner.test_evaluator.metrics.append(_dump_metric(cfg, out))
    metrics = runner.test()
    if is_main_process():
        mode = AUGMENTED if tta else PLAIN
        results = keep_result(cfg.work_dir, identity, mode, metrics)
        print(f'results of {checkpoint}\n{as_table(results)}', flush=True)
    return metrics


def _dump_metric(cfg: Config, out: str):
    """The metric that writes predictions; mmdet's packs its masks."""
    in_mmdet = cfg.get('default_scope') == 'mmdet'
    kind = 'mmdet.DumpDetResults' if in_mmdet else 'DumpResults'
    return METRICS.build(dict(type=kind, out_file_path=out))


def _draw_into(cfg: Config, folder: str, tta: bool) -> None:
    """Switch the scope's visualization hook on, for every test image."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ConfigError(
            f'--show-dir: config {cfg.filename} has no '
            'default_hooks.visualization, which draws the pictures'
        )
    scope = check_scope(cfg, '--show-dir')
    if scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder)
    elif scope == 'mmseg' and reads_pairs(cfg):
        # mmseg's draws on the first file, whatever part of it was tested.
        cfg.default_hooks.visualization = dict(
            type='mmssm.analysis.change_hook.ChangeVisualizationHook',
            out_dir=folder,
        )
    elif scope == 'mmseg':
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder
    else:
        if tta:
            raise ConfigError(
                "--show-dir: mmpretrain's hook draws no augmented images; "
                'leave --tta out'
            )
        hook.update(enable=True, interval=1, out_dir=folder)


def _use_tta(cfg: Config) -> None:
    require(cfg, 'tta_model', 'tta_pipeline', purpose='--tta')
    for dataset, _ in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
