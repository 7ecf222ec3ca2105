"""The old name of :mod:`mmssm.apis` for inference."""

from mmssm.utils.moved import moved_names

__getattr__ = moved_names(
    __name__,
    dict.fromkeys(
        ('InferenceSummary', 'find_model', 'infer', 'register_model_index'),
        'mmssm.apis',
    ),
)
