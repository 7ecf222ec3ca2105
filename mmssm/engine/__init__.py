"""Training and testing: checkpoints that survive, errors that help."""

from .change_metric import ChangeMetric
from .checkpoint_hook import AtomicCheckpointHook
from .cli import add_common_options, add_unsafe_load
from .direction_search_hook import DirectionSearchHook
from .errors import ConfigError, run_tool
from .evaluate import evaluate
from .memory import keep_freed_memory
from .mesa_hook import MESAHook
from .preflight import check_data, check_weights
from .resume import find_latest
from .strict_load import StrictLoadHook
from .train import train

__all__ = [
    'AtomicCheckpointHook',
    'ChangeMetric',
    'ConfigError',
    'DirectionSearchHook',
    'MESAHook',
    'StrictLoadHook',
    'add_common_options',
    'add_unsafe_load',
    'check_data',
    'check_weights',
    'evaluate',
    'find_latest',
    'keep_freed_memory',
    'run_tool',
    'train',
]
