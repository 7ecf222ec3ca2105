"""Predictions for a person's own images, whatever the task."""

from .infer import InferenceSummary, infer
from .model_names import find_model, register_model_index

__all__ = ['InferenceSummary', 'find_model', 'infer', 'register_model_index']
