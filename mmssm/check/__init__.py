"""Check that the ops are correct and quick on a machine.

``python -m mmssm.check`` prints what :func:`environment`, :func:`accuracy` and
:func:`speed` find.
"""

from .accuracy import Accuracy, accuracy
from .environment import environment, problems
from .speed import Speed, speed

__all__ = [
    'Accuracy',
    'Speed',
    'accuracy',
    'environment',
    'problems',
    'speed',
]
