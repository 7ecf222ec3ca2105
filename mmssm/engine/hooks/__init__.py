"""Hooks for mmengine's Runner."""

from .change_visualization_hook import ChangeVisualizationHook
from .checkpoint_hook import AtomicCheckpointHook
from .direction_search_hook import DirectionSearchHook
from .mesa_hook import MESAHook
from .optimize_hook import OptimizeHook
from .partial_load_hook import PartialLoadHook
from .strict_load_hook import StrictLoadHook

__all__ = [
    'AtomicCheckpointHook',
    'ChangeVisualizationHook',
    'DirectionSearchHook',
    'MESAHook',
    'OptimizeHook',
    'PartialLoadHook',
    'StrictLoadHook',
]
