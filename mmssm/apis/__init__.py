"""The functions behind the command-line tools.

Importing this package registers all parts of mmssm that configs can name, so
that a config whose ``custom_imports`` are others still finds them.
"""

import mmssm.datasets
import mmssm.engine
import mmssm.evaluation
import mmssm.models  # noqa: F401
from mmssm.utils.model_index import register_model_index

from .convert import convert
from .evaluate import evaluate
from .infer import InferenceSummary, infer
from .model_index import find_model
from .train import train

__all__ = [
    'InferenceSummary',
    'convert',
    'evaluate',
    'find_model',
    'infer',
    'register_model_index',
    'train',
]
