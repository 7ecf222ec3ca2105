"""Three libraries in one process, their lazily built parts included."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmssm.apis.train import build_runner
from mmssm.engine import ScopedRunner
from mmssm.utils import ConfigError
from mmssm.utils.config import load_config


def test_each_runs_after_the_others_have_been_made(
    mini_tasks, tmp_path, monkeypatch
):
    """mmengine's own Runner would look for each one's parts in the last's."""
    root, tasks = mini_tasks
    monkeypatch.chdir(root)
    runners = []
    for _, config, _ in tasks:
        cfg = load_config(config, work_dir=str(tmp_path))
        cfg.test_dataloader.dataset.indices = 4
        cfg.experiment_name = Path(config).stem
        runners.append(build_runner(cfg))
    for runner, (_, _, metric) in zip(runners, tasks):
        before = DefaultScope.get_current_instance().scope_name
        assert metric in runner.test()
        assert DefaultScope.get_current_instance().scope_name == before


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_dataset_without_images(tmp_path, wrapped):
    (tmp_path / 'photo.JPG').touch()
    dataset = dict(
        type='mmseg.BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path=''),
        img_suffix='.jpg',
    )
    if wrapped:
        dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
    loader = dict(dataset=dataset, batch_size=1)
    with (
        DefaultScope.overwrite_default_scope('mmseg'),
        pytest.raises(ConfigError, match=f'finds no image.*{tmp_path}'),
    ):
        ScopedRunner.build_dataloader(loader)


def test_config_is_written_to_the_work_directory(toy_config):
    cfg = load_config(toy_config, {'randomness.seed': 3}, work_dir='out')
    ScopedRunner.from_cfg(cfg)
    assert Config.fromfile('out/config.py').randomness.seed == 3


def test_config_of_the_work_directory_is_not_replaced(toy_config):
    """It is the user's, with comments and inherited parts."""
    Path('out').mkdir()
    text = f'# Mine.\n_base_ = {toy_config!r}\n'
    Path('out/mine.py').write_text(text)
    ScopedRunner.from_cfg(load_config('out/mine.py', work_dir='out'))
    assert Path('out/mine.py').read_text() == text
