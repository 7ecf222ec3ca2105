"""Metrics that the OpenMMLab libraries do not have."""

from .change_metric import ChangeMetric

__all__ = ['ChangeMetric']
