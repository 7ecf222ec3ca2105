"""Three libraries in one process, their lazily built parts included."""

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from mmssm.engine.config import load_config
from mmssm.engine.train import build_runner

MINI = Path(__file__).parents[2] / 'configs' / 'mini'
# Config and what reads the few test images that are used here.
TASKS = dict(
    mmdet='mask-rcnn_vmamba-mini_mini-coco',
    mmseg='vmamba-mini_upernet_mini-ade20k',
    mmpretrain='vmamba-mini_mini-in1k',
)
METRICS = dict(mmdet='coco/segm_mAP', mmseg='mIoU', mmpretrain='accuracy/top1')


@pytest.fixture
def runners(tmp_path, monkeypatch):
    """A detector's, a segmentor's and a classifier's runner."""
    monkeypatch.chdir(tmp_path)  # the mini sets are drawn there
    made = {}
    for scope, name in TASKS.items():
        cfg = load_config(str(MINI / f'{name}.py'), work_dir=str(tmp_path))
        cfg.test_dataloader.dataset.indices = 4
        cfg.experiment_name = name
        made[scope] = build_runner(cfg)
    return made


def test_each_runs_after_the_others_have_been_made(runners):
    """mmengine's own Runner would look for each one's parts in the last's."""
    for scope, runner in runners.items():
        before = DefaultScope.get_current_instance().scope_name
        assert METRICS[scope] in runner.test()
        assert DefaultScope.get_current_instance().scope_name == before
