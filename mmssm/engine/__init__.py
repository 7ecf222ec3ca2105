"""Training: hooks, optimizers, a runner, launching and resuming."""

from mmssm.utils.moved import moved_names

from .hooks import (
    AtomicCheckpointHook,
    ChangeVisualizationHook,
    DirectionSearchHook,
    MESAHook,
    OptimizeHook,
    PartialLoadHook,
    StrictLoadHook,
)
from .optimizers import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .runner import ScopedRunner, find_latest

__all__ = [
    'AtomicCheckpointHook',
    'CPUAmpOptimWrapper',
    'ChangeVisualizationHook',
    'DirectionSearchHook',
    'LayerDecayOptimWrapperConstructor',
    'MESAHook',
    'OptimizeHook',
    'PartialLoadHook',
    'ScopedRunner',
    'StrictLoadHook',
    'find_latest',
]

__getattr__ = moved_names(__name__)
