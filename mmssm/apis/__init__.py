"""What the tools call: train, evaluate, infer, convert and their like."""

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
