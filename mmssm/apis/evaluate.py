"""Evaluating a checkpoint from a config file."""

import inspect
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mmssm.checkpoint import locate_checkpoint
from mmssm.engine import OptimizeHook, StrictLoadHook
from mmssm.engine.runner.launch import prepare_launch
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    leaf_datasets,
    leaf_metrics,
    load_config,
    registered,
    require,
    type_name,
)
from mmssm.utils.errors import warn
from mmssm.utils.files import make_folder

from .annotations import check_annotations
from .loop_checks import check_loops
from .model_checks import check_channels, check_num_classes
from .prediction_file import PredictionFileHook
from .preflight import check_data
from .results import (
    AUGMENTED,
    PLAIN,
    as_table,
    identify,
    keep_result,
)
from .scores import LogReader, Scores, explain_missing, read_scores
from .tasks import find_task
from .train import build_runner


def evaluate(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    optimize: str | None = None,
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
        out (str, optional): A ``.pkl`` file for the predictions, see
            :class:`~mmssm.apis.prediction_file.PredictionFileHook`.
        show_dir (str, optional): A folder for pictures of the predictions.
            Each has its image's path below the folder that all images share.
        optimize (str, optional): 'float32' or 'bfloat16', the dtype of
            matrix products, to test a model that was prepared by
            :func:`mmssm.optimize_for_inference`.
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
    _check_metrics(cfg)
    if tta:
        _use_tta(cfg)
    check_data(cfg, 'test')
    check_num_classes(cfg, 'test')
    check_annotations(cfg, 'test')
    hooks: list[Hook] = [StrictLoadHook()]
    predictions = None
    if out is not None:
        predictions = PredictionFileHook(out, task.pack_prediction)
        hooks.append(predictions)
    if show_dir is not None:
        folder = Path(show_dir).expanduser()
        hooks.append(task.picture_hook(cfg, folder))
        make_folder(folder, '--show-dir')
    if optimize is not None:
        if torch.cuda.is_available():
            raise ConfigError(
                f'--optimize {optimize} prepares a model for a CPU, and tests '
                'run on a GPU here; leave it out, or hide the GPUs with '
                'CUDA_VISIBLE_DEVICES='
            )
        hooks.append(OptimizeHook(optimize))
    prepare_launch(cfg, launcher)
    if show_dir is not None and get_world_size() > 1:
        warn('--show-dir: only the first of several processes draws')
    runner = build_runner(cfg)
    check_channels(cfg, runner.model)
    for hook in hooks:
        runner.register_hook(hook)
    log = LogReader()
    runner.logger.addHandler(log)
    try:
        metrics = runner.test()
    finally:
        runner.logger.removeHandler(log)
        if predictions is not None:
            predictions.close()
    if is_main_process():
        mode = AUGMENTED if tta else PLAIN
        scores = _read_scores(runner, metrics, log)
        results = keep_result(cfg.work_dir, identity, mode, scores)
        print(f'results of {checkpoint}\n{as_table(results)}', flush=True)
    return metrics


def _check_metrics(cfg: Config) -> None:
    """Refuse metrics that would fail, some of them only after the test."""
    for metric, place in leaf_metrics(cfg, 'test'):
        kind = type_name(metric['type'])
        known = registered(METRICS, metric, cfg.get('default_scope'))
        options = inspect.signature(known).parameters if known else ()
        key = 'outfile_prefix' if 'outfile_prefix' in options else 'output_dir'
        unsaid = key in options and not metric.get(key)
        if metric.get('format_only') and unsaid:
            raise ConfigError(
                f'{place}.format_only: {kind} only writes results, but '
                f'nothing says where; set {place}.{key}'
            )
        if kind == 'CocoPanopticMetric' and find_spec('panopticapi') is None:
            raise ConfigError(
                f'{kind} ({place}) needs a package; install it with pip '
                'install git+https://github.com/cocodataset/panopticapi.git'
            )


def _read_scores(runner: Runner, metrics: dict, log: LogReader) -> Scores:
    dataset = runner.test_dataloader.dataset
    known = getattr(dataset, 'metainfo', None)
    # Of datasets with different classes, mmdet gives a list: no common names.
    names = known.get('classes') if isinstance(known, dict) else None
    scores = read_scores(metrics, log, names)
    if not metrics:
        evaluated = runner.test_evaluator.metrics
        scores.notes = explain_missing(evaluated, log)
    return scores


def _use_tta(cfg: Config) -> None:
    require(cfg, 'tta_model', 'tta_pipeline', purpose='--tta')
    for dataset, _ in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
