"""The functions behind the command-line tools."""

from .convert import convert
from .evaluate import evaluate
from .infer import InferenceSummary, infer
from .model_index import find_model, register_model_index
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
