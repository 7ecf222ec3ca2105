"""Accuracy of a classifier at several image sizes."""

import copy
import gc
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmssm.engine.runner.launch import prepare_launch
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    load_config,
    metrics_of,
    require,
    type_name,
)
from mmssm.utils.files import make_folder
from mmssm.visualization.figures import check_figure_path
from mmssm.visualization.resolutions import Resolution, draw_resolutions

from .evaluate import evaluate
from .image_sizes import own_size, size_options
from .tasks import find_task
from .tasks.classification import Classification

FILE_NAME = 'resolutions.png'


def evaluate_resolutions(
    config: str,
    checkpoint: str,
    sizes: Iterable[int],
    out: str | Path | None = None,
    work_dir: str | None = None,
    options: dict | None = None,
    launcher: str = 'none',
) -> list[Resolution]:
    """Evaluate a classifier at several image sizes; print and draw them.

    The table is printed at the end, also after an error. The picture is drawn
    again after each size. So no result is lost if a later size fails.

    Args:
        config (str): Config file for mmpretrain.
        checkpoint (str): A file or address, see
            :func:`mmssm.apis.evaluate`.
        sizes (Iterable[int]): Sides of the square images, in pixels; each is
            evaluated once, the smallest first.
        out (str | Path, optional): The picture; its suffix chooses the
            format. Defaults to ``resolutions.png`` in the work directory.
        work_dir (str, optional): Where the logs go. Defaults to the config's
            own, else ``work_dirs/<config's name>``.
        options (dict, optional): Config values to overwrite.
        launcher (str): What started this process: ``'none'``, ``'pytorch'``,
            ``'slurm'`` or ``'mpi'``.

    Returns:
        list[Resolution]: One for each size, the smallest first.

    Raises:
        ConfigError: A size, the config, its data or an option is unusable.
        CheckpointError: The checkpoint is unusable or of another model.
        ValueError: The picture's suffix is not a known format.
    """
    sizes = check_sizes(sizes)
    if out is not None:
        check_figure_path(out)
        if Path(out).is_dir():
            raise ConfigError(f'--out {out} is a folder; name a picture')
    # A copy: applying options removes their ``_delete_`` keys.
    cfg = load_config(config, copy.deepcopy(options), work_dir)
    _check_classifier(cfg)
    own = own_size(cfg)
    changes = {size: size_options(cfg, size) for size in sizes}
    out = Path(cfg.work_dir) / FILE_NAME if out is None else Path(out)
    # Done before evaluate(): until the launch, every process counts as the
    # main process and would print.
    prepare_launch(cfg, launcher)
    if is_main_process():
        make_folder(out.parent, '--out')
    results = []
    try:
        for size in sizes:
            batch = changes[size]['test_dataloader.batch_size']
            _say(
                f'[{len(results) + 1}/{len(sizes)}] {size} x {size}, '
                f'{batch} images per batch ...'
            )
            metrics = evaluate(
                config,
                checkpoint,
                work_dir=work_dir,
                options=copy.deepcopy(options or {}) | changes[size],
                launcher=launcher,
            )
            results.append(_as_result(size, batch, metrics))
            if is_main_process():
                draw_resolutions(results, own, Path(config).stem, out)
            # A runner and its loop refer to each other, so only the collector
            # frees them, the model and the loader's processes.
            gc.collect()
    finally:
        if results:
            _say(f'{as_table(results)}\n{out}')
    return results


def check_sizes(sizes: Iterable[int]) -> list[int]:
    """The sizes in ascending order, each once.

    Raises:
        ConfigError: There is no size, or one is not a positive whole number.
    """
    sizes = list(sizes)
    wrong = [s for s in sizes if not isinstance(s, int) or s < 1]
    if wrong or not sizes:
        raise ConfigError(
            f'--sizes: got {wrong[0] if wrong else "none"}; give whole '
            'numbers of pixels from 1, e.g. 224 384 512'
        )
    return sorted(set(sizes))


def _check_classifier(cfg: Config) -> None:
    """Raise a ConfigError unless testing gives one top-1 accuracy."""
    task = find_task(cfg, 'accuracy over image sizes')
    if not isinstance(task, Classification):
        raise ConfigError(
            f"config {cfg.filename} is {cfg.default_scope}'s, but accuracy "
            "over image sizes is a classifier's; give a config of mmpretrain"
        )
    require(
        cfg,
        'test_dataloader',
        'test_evaluator',
        purpose='accuracy over image sizes',
    )
    metrics = metrics_of(cfg, 'test')
    if not any(_gives_top1(metric) for metric in metrics):
        found = ', '.join(type_name(metric['type']) for metric in metrics)
        raise ConfigError(
            f'the test_evaluator of {cfg.filename} ({found}) gives no top-1 '
            "accuracy; set it to dict(type='Accuracy', topk=(1, 5))"
        )


def _gives_top1(metric: dict) -> bool:
    topk, thresholds = metric.get('topk', 1), metric.get('thrs')
    return (
        type_name(metric['type']) == 'Accuracy'
        and 1 in (topk if isinstance(topk, (list, tuple)) else [topk])
        # Several thresholds give several accuracies.
        and not (isinstance(thresholds, (list, tuple)) and thresholds[1:])
    )


def _as_result(size: int, batch: int, metrics: dict) -> Resolution:
    # Without the prefix, which a config can choose.
    values = {key.rpartition('/')[2]: metrics[key] for key in metrics}
    return Resolution(size, batch, values['top1'], values.get('top5'))


def as_table(results: Sequence[Resolution]) -> str:
    """The results as lines of text: pixels, percent, images."""
    lines = [f'{"size":>6}{"top-1":>9}{"top-5":>9}{"images per batch":>19}']
    for result in results:
        top5 = '-' if result.top5 is None else f'{result.top5:.2f}'
        lines.append(
            f'{result.size:>6}{result.top1:>9.2f}{top5:>9}{result.batch:>19}'
        )
    return '\n'.join(lines)


def _say(message: str) -> None:
    """Print a line, in the first process only."""
    if is_main_process():
        print(message, flush=True)
