"""The tasks, and the function that finds the task of a config."""

from mmengine.config import Config

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, type_name

from .base import Prediction, Predictor, Task
from .change_detection import ChangeDetection
from .classification import Classification
from .detection import Detection
from .pipeline import PAIR_LOADER, adapt_config
from .segmentation import Segmentation

__all__ = [
    'Prediction',
    'Predictor',
    'Task',
    'adapt_config',
    'find_task',
]

# By the library that a config is written for.
_TASKS = {
    'mmdet': Detection,
    'mmseg': Segmentation,
    'mmpretrain': Classification,
}


def find_task(cfg: Config, purpose: str | None = None) -> Task:
    """The task of a config.

    Args:
        cfg (Config): A config; its ``default_scope`` names the library, and
            its pipelines tell a change detector from a segmentor.
        purpose (str, optional): What the task is needed for. Without it, a
            config of another library gets the base class.

    Returns:
        Task: The task.

    Raises:
        ConfigError: ``purpose`` needs one of the tasks, and the config is of
            another library.
    """
    scope = cfg.get('default_scope')
    if scope not in _TASKS:
        if purpose is None:
            return Task()
        raise ConfigError(
            f'config {cfg.filename} has default_scope={scope!r}, but '
            f'{purpose} knows {", ".join(_TASKS)}; set it to the library '
            'that the config is written for'
        )
    if scope == 'mmseg' and _takes_pairs(cfg):
        return ChangeDetection()
    return _TASKS[scope]()


def _takes_pairs(cfg: Config) -> bool:
    """Whether a segmentor's test pipeline reads pairs of images.

    Without a test set, six input channels mean pairs.
    """
    if cfg.get('test_dataloader') is None:
        preprocessor = cfg.model.get('data_preprocessor') or {}
        return len(preprocessor.get('mean') or ()) == 6
    dataset, _ = next(leaf_datasets(cfg.test_dataloader.dataset))
    steps = dataset.get('pipeline', [])
    return any(type_name(step['type']) == PAIR_LOADER for step in steps)
