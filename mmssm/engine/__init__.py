"""Training: hooks, and a runner for several processes and for resuming."""

from mmssm.utils.moved import moved_names

from .hooks import (
    AtomicCheckpointHook,
    ChangeVisualizationHook,
    DirectionSearchHook,
    MESAHook,
    StrictLoadHook,
)
from .runner import ScopedRunner, find_latest

__all__ = [
    'AtomicCheckpointHook',
    'ChangeVisualizationHook',
    'DirectionSearchHook',
    'MESAHook',
    'ScopedRunner',
    'StrictLoadHook',
    'find_latest',
]

__getattr__ = moved_names(
    __name__,
    {
        'ChangeMetric': 'mmssm.evaluation',
        'ConfigError': 'mmssm.utils',
        'add_common_options': 'mmssm.apis.cli',
        'add_unsafe_load': 'mmssm.apis.cli',
        'check_data': 'mmssm.apis.preflight',
        'check_weights': 'mmssm.apis.preflight',
        'evaluate': 'mmssm.apis',
        'keep_freed_memory': 'mmssm.utils',
        'run_tool': 'mmssm.apis.cli',
        'train': 'mmssm.apis',
    },
)
