"""The old name of :mod:`mmssm.apis`, for inference."""

from mmssm.utils.moved import moved_names

__getattr__ = moved_names(__name__)
