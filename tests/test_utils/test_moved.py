import importlib

import pytest
from mmengine.registry import METRICS

import mmssm.engine
from mmssm.utils.moved import _PLACES


@pytest.mark.parametrize('package', _PLACES)
def test_every_old_name_works_and_names_the_new_place(package):
    old = importlib.import_module(package)
    for name, place in _PLACES[package].items():
        with pytest.warns(FutureWarning, match=f'use {place}.{name}$'):
            found = getattr(old, name)
        assert found is getattr(importlib.import_module(place), name)


def test_old_config_builds():
    with pytest.warns(FutureWarning, match='use mmssm.evaluation'):
        metric = METRICS.build(dict(type='mmssm.engine.ChangeMetric'))
    assert type(metric).__name__ == 'ChangeMetric'


def test_unknown_name():
    with pytest.raises(AttributeError, match='has no attribute nothing'):
        getattr(mmssm.engine, 'nothing')  # noqa: B009
