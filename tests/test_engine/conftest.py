from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from mmssm.datasets.mini import WRITERS, build_mini

TOY = Path(__file__).parents[1] / 'data' / 'toy'


@pytest.fixture
def toy_config(tmp_path, monkeypatch):
    """The toy task's config; the work happens in a folder of its own."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    return str(TOY / 'config.py')


# The scope, config and main metric of each of the three tasks.
MINI_TASKS = [
    ('mmdet', 'mask-rcnn_vmamba-mini_mini-coco', 'coco/segm_mAP'),
    ('mmseg', 'vmamba-mini_upernet_mini-ade20k', 'mIoU'),
    ('mmpretrain', 'vmamba-mini_mini-in1k', 'accuracy/top1'),
]


@pytest.fixture(scope='session')
def mini_tasks(tmp_path_factory):
    """The tasks, and a folder with the mini sets that their configs read."""
    root = tmp_path_factory.mktemp('mini')
    for name in WRITERS:
        build_mini(name, root / 'data' / 'mini' / name)
    configs = Path(__file__).parents[2] / 'configs' / 'mini'
    tasks = [
        (scope, str(configs / f'{name}.py'), metric)
        for scope, name, metric in MINI_TASKS
    ]
    return root, tasks


@pytest.fixture(autouse=True)
def no_names_in_common():
    """Forget mmengine's loggers and the like.

    Two runs that start within one second have one name and would share them,
    and with them the first one's log file.
    """
    yield
    for manager in (MMLogger, MessageHub, Visualizer, DefaultScope):
        manager._instance_dict.clear()
