"""Evaluating a checkpoint from a config file."""

import os

from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmssm.checkpoint import locate_checkpoint
from mmssm.engine import StrictLoadHook
from mmssm.engine.runner.launch import prepare_launch
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    leaf_datasets,
    load_config,
    require,
)
from mmssm.utils.errors import warn

from .annotations import check_annotations
from .loop_checks import check_loops
from .model_checks import check_channels, check_num_classes
from .preflight import check_data
from .results import (
    AUGMENTED,
    PLAIN,
    as_table,
    identify,
    keep_result,
)
from .tasks import find_task
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
        config (str): Config file for mmdet, mmseg or mmpretrain.
        checkpoint (str): A file or address. Written by mmssm or released by
            the original authors; it must fit the model exactly.
        work_dir (str, optional): Where the log goes. Defaults to the
            config's own, else ``work_dirs/<config's name>``.
        out (str, optional): A ``.pkl`` file for the predictions.
        show_dir (str, optional): A folder for pictures of the predictions.
        tta (bool): Test with the config's ``tta_model`` and
            ``tta_pipeline``. If the work directory has results of the same
            model without augmentation, the printed table shows both.
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
    check_loops(cfg, 'test')
    task = find_task(cfg)
    task.check_test_set(cfg)
    cfg.load_from = checkpoint
    cfg.resume = False
    identity = identify(cfg, checkpoint)
    if show_dir is not None:
        _require_hook(cfg)
        task.draw_test_images(cfg, os.path.abspath(show_dir), tta)
    if tta:
        _use_tta(cfg)
    check_data(cfg, 'test')
    check_num_classes(cfg, 'test')
    check_annotations(cfg, 'test')
    prepare_launch(cfg, launcher)
    if show_dir is not None and get_world_size() > 1:
        warn('--show-dir: only the first of several processes draws')
    runner = build_runner(cfg)
    check_channels(cfg, runner.model)
    runner.register_hook(StrictLoadHook())
    # A change detector's hook numbers pictures of one name.
    if show_dir is not None and not task.takes_pairs:
        runner.register_hook(_PictureNamesHook())
    if out is not None:
        runner.test_evaluator.metrics.append(task.dump_predictions(out))
    metrics = runner.test()
    if is_main_process():
        mode = AUGMENTED if tta else PLAIN
        results = keep_result(cfg.work_dir, identity, mode, metrics)
        print(f'results of {checkpoint}\n{as_table(results)}', flush=True)
    return metrics


class _PictureNamesHook(Hook):
    """Warn of pictures that will replace each other.

    The libraries' hooks name pictures after files, without their folders.
    """

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        if not hasattr(dataset, 'get_data_info'):
            return  # not mmengine's kind
        infos = (dataset.get_data_info(i) for i in range(len(dataset)))
        paths = [info['img_path'] for info in infos if 'img_path' in info]
        names = {os.path.basename(path) for path in paths}
        if len(names) < len(paths):
            warn(
                f'--show-dir: {len(paths)} test images have only {len(names)} '
                'names, and pictures of one name replace each other; give '
                'files in different folders different names'
            )


def _require_hook(cfg: Config) -> None:
    if cfg.get('default_hooks', {}).get('visualization') is None:
        raise ConfigError(
            f'--show-dir: config {cfg.filename} has no '
            'default_hooks.visualization, which draws the pictures'
        )


def _use_tta(cfg: Config) -> None:
    require(cfg, 'tta_model', 'tta_pipeline', purpose='--tta')
    for dataset, _ in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
