from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

TOY = Path(__file__).parents[1] / 'data' / 'toy'


@pytest.fixture
def toy_config(tmp_path, monkeypatch):
    """The toy task's config; the work happens in a folder of its own."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    return str(TOY / 'config.py')


@pytest.fixture(autouse=True)
def no_names_in_common():
    """Forget mmengine's loggers and the like.

    Two runs that start within one second have one name and would share them,
    and with them the first one's log file.
    """
    yield
    for manager in (MMLogger, MessageHub, Visualizer, DefaultScope):
        manager._instance_dict.clear()
