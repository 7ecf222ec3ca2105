"""Three libraries in one process, their lazily built parts included."""

from pathlib import Path

from mmengine.registry import DefaultScope

from mmssm.apis.train import build_runner
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
