import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmssm.apis import train
from mmssm.checkpoint import load_file
from mmssm.engine.runner.resume import find_latest, prepare_resume
from mmssm.utils import CheckpointError


def save(path, step, **extra):
    torch.save(
        dict(
            meta=dict(epoch=step),
            state_dict={},
            message_hub={},
            optimizer={},
            **extra,
        ),
        path,
    )


@pytest.fixture
def run(tmp_path):
    """A work directory after eleven epochs."""
    for epoch in (9, 10, 11):
        save(tmp_path / f'epoch_{epoch}.pth', epoch)
    torch.save(dict(state_dict={}), tmp_path / 'best_mAP_epoch_12.pth')
    torch.save(dict(state_dict={}), tmp_path / 'epoch_12-0123abcd.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_11.pth'))
    return tmp_path


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_marked_checkpoint(run):
    (run / 'last_checkpoint').write_text(str(run / 'epoch_10.pth'))
    assert find_latest(str(run)) == str(run / 'epoch_10.pth')


@pytest.mark.parametrize('damage', [cut, Path.unlink])
def test_falls_back_to_the_newest_that_loads(run, damage, capsys):
    damage(run / 'epoch_11.pth')
    assert find_latest(str(run)) == str(run / 'epoch_10.pth')
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith('warning: ') and 'epoch_11.pth' in warning
    cut(run / 'epoch_10.pth')
    assert find_latest(str(run)) == str(run / 'epoch_9.pth')


@pytest.mark.parametrize('marker', [None, ''])
def test_marker_missing_or_empty(run, marker):
    (run / 'last_checkpoint').unlink()
    if marker is not None:
        (run / 'last_checkpoint').write_text(marker)
    assert find_latest(str(run)) == str(run / 'epoch_11.pth')


def test_folder_was_moved(run, tmp_path_factory):
    moved = tmp_path_factory.mktemp('elsewhere') / 'run'
    shutil.move(run, moved)
    assert find_latest(str(moved)) == str(moved / 'epoch_11.pth')


def test_nothing_there(tmp_path):
    assert find_latest(str(tmp_path)) is None
    assert find_latest(str(tmp_path / 'no such folder')) is None


def test_all_damaged(run):
    for path in run.glob('epoch_*.pth'):
        cut(path)
    with pytest.raises(CheckpointError, match='none of the checkpoints'):
        find_latest(str(run))


def test_given_checkpoint_must_hold_a_training_state(run):
    cfg = Config(dict(work_dir=str(run)))
    with pytest.raises(CheckpointError, match='load_from='):
        prepare_resume(cfg, str(run / 'best_mAP_epoch_12.pth'))
    prepare_resume(cfg, str(run / 'epoch_9.pth'))
    assert cfg.resume and cfg.load_from == str(run / 'epoch_9.pth')


def test_first_start_keeps_the_configs_load_from(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    prepare_resume(cfg, 'auto')
    assert not cfg.resume and cfg.load_from == 'coco.pth'
    assert 'starts from the beginning' in capsys.readouterr().err


def test_training_goes_on_from_the_older_checkpoint(toy_config):
    train(toy_config, work_dir='out')
    cut(Path('out/epoch_2.pth'))
    train(
        toy_config,
        work_dir='out',
        resume='auto',
        options={'train_cfg.max_epochs': 3},
    )
    checkpoint = load_file('out/epoch_3.pth')
    assert checkpoint['meta']['epoch'] == 3
    assert checkpoint['meta']['iter'] == 30
    log = max(Path('out').glob('*/*.log')).read_text()
    assert 'resumed epoch: 1' in log


def test_a_gate_of_an_earlier_version(run):
    """Its optimizer has one state for what are two tensors today."""
    path = run / 'epoch_11.pth'
    mixer = 'backbone.stages.0.blocks.0.mixer.'
    checkpoint = torch.load(path)
    checkpoint['state_dict'] = {
        f'{mixer}x_proj_weight': torch.zeros(1, 3, 8),
        f'{mixer}in_proj.weight': torch.zeros(16, 8),
        f'{mixer}out_proj.weight': torch.zeros(8, 8),
    }
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match='of an earlier version'):
        prepare_resume(Config(), str(path))
    checkpoint['state_dict'][f'{mixer}in_proj.weight'] = torch.zeros(8, 8)
    torch.save(checkpoint, path)
    prepare_resume(Config(), str(path))
