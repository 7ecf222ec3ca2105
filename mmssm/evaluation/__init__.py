"""What models are measured by, beside the libraries' own metrics."""

from .change_metric import ChangeMetric

__all__ = ['ChangeMetric']
