"""Adapt configs to inference."""

from copy import deepcopy

from mmengine.config import Config, ConfigDict

from mmssm.utils import ConfigError
from mmssm.utils.config import (
    complete_model,
    leaf_datasets,
    type_name,
)

# Loads the two images of a pair as one, see mmssm.datasets.
PAIR_LOADER = 'LoadImagePair'


def adapt_config(cfg: Config) -> Config:
    """Adapt a config to images that are given as arrays.

    Args:
        cfg (Config): A config for mmdet, mmseg or mmpretrain, with a
            ``test_dataloader``.

    Returns:
        Config: A copy. Its test dataset has no wrapper, its test pipeline
        loads images but no annotations, and its model has its
        ``data_preprocessor``.

    Raises:
        ConfigError: The pipeline does not read color images or pairs of
            them.
    """
    cfg = deepcopy(cfg)
    dataset, place = next(
        leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset')
    )
    place = f'{place}.pipeline of {cfg.filename}'
    dataset.pipeline = _adapt_pipeline(dataset.get('pipeline', []), place)
    cfg.test_dataloader.dataset = dataset
    complete_model(cfg)
    return cfg


def _adapt_pipeline(steps: list[ConfigDict], place: str) -> list[ConfigDict]:
    """Remove the loading of annotations and of files."""
    kinds = [type_name(step['type']) for step in steps]
    if not {'LoadImageFromFile', PAIR_LOADER} & set(kinds):
        raise ConfigError(
            f'{place} has no LoadImageFromFile; inference needs one that '
            'reads single images'
        )
    pipeline = []
    for step, kind in zip(steps, kinds):
        if kind.startswith('Load') and ('Annot' in kind or 'Label' in kind):
            continue
        if kind == PAIR_LOADER:
            step = ConfigDict(type='LoadImageFromFile')
        elif kind == 'LoadImageFromFile':
            if not step.get('color_type', 'color').startswith('color'):
                raise ConfigError(
                    f'{place} reads images as {step.color_type}, but '
                    'inference reads color images only'
                )
            # The inferencers look for the name without a scope and put a
            # loader of arrays in its place.
            in_float = step.get('to_float32', False)
            step = ConfigDict(type=kind, to_float32=in_float)
        pipeline.append(step)
    return pipeline
