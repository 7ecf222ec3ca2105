"""AtomicCheckpointHook in real, if tiny, training runs."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from mmssm.apis import train
from mmssm.checkpoint import load_file


class Crash(Exception):
    """Stands for whatever ends a process at a bad moment."""


def crash_at(monkeypatch, owner, name, when):
    """Replace a function by one that crashes once ``when(*args)`` is true."""
    function = getattr(owner, name)

    def crashing(*args, **kwargs):
        if when(*args):
            raise Crash
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, crashing)


def weights():
    return sorted(path.name for path in Path('out').glob('*.pth'))


def marked():
    return Path(Path('out/last_checkpoint').read_text())


def options(**changes):
    return {
        f'default_hooks.checkpoint.{key}': value
        for key, value in changes.items()
    }


def test_same_files_as_mmengine(toy_config):
    train(toy_config, work_dir='out', options=options(max_keep_ckpts=1))
    assert weights() == ['epoch_2.pth']
    assert marked() == Path('out/epoch_2.pth').absolute()
    assert not list(Path('out').glob('.*'))
    checkpoint = load_file(marked())
    assert checkpoint['meta']['epoch'] == 2
    assert sorted(checkpoint) == [
        'message_hub',
        'meta',
        'optimizer',
        'state_dict',
    ]


@pytest.mark.parametrize('moment', ['writing', 'renaming', 'marking'])
def test_crash_while_saving_leaves_a_checkpoint(
    toy_config, monkeypatch, moment
):
    """With one checkpoint kept, the second save crashes half-way."""
    if moment == 'writing':
        crash_at(monkeypatch, os, 'fsync', lambda _: _second_exists())
    elif moment == 'renaming':
        crash_at(
            monkeypatch,
            os,
            'replace',
            lambda _, to: str(to).endswith('epoch_2.pth'),
        )
    else:
        crash_at(
            monkeypatch,
            os,
            'replace',
            lambda _, to: str(to).endswith('last_checkpoint')
            and Path('out/epoch_2.pth').exists(),
        )
    with pytest.raises(Crash):
        train(toy_config, work_dir='out', options=options(max_keep_ckpts=1))

    assert marked().name == 'epoch_1.pth'
    assert load_file(marked())['meta']['epoch'] == 1


def _second_exists():
    return any('epoch_2' in path.name for path in Path('out').iterdir())


def test_old_checkpoint_goes_last(toy_config, monkeypatch):
    """The new checkpoint and the marker are there before the old one goes."""
    seen = []
    from mmssm.engine.hooks.checkpoint_hook import AtomicBackend

    remove = AtomicBackend.remove

    def watch(self, path):
        seen.append((Path(path).name, weights(), marked().name))
        remove(self, path)

    monkeypatch.setattr(AtomicBackend, 'remove', watch)
    train(toy_config, work_dir='out', options=options(max_keep_ckpts=1))
    assert seen == [
        ('epoch_1.pth', ['epoch_1.pth', 'epoch_2.pth'], 'epoch_2.pth')
    ]


def test_best_checkpoint_is_replaced_after_the_new_one(
    toy_config, monkeypatch
):
    changes = options(save_best='error', rule='less')
    with monkeypatch.context() as patch:
        crash_at(
            patch, os, 'replace', lambda _, to: 'best_error_epoch_2' in str(to)
        )
        with pytest.raises(Crash):
            train(toy_config, work_dir='out', options=changes)
    assert 'best_error_epoch_1.pth' in weights()

    changes['train_cfg.max_epochs'] = 3
    train(toy_config, work_dir='out', resume='auto', options=changes)
    assert [name for name in weights() if name.startswith('best')] == [
        'best_error_epoch_3.pth'
    ]


def test_leftovers_of_a_killed_run_are_cleared(toy_config):
    Path('out').mkdir()
    leftover = Path('out/.epoch_9.pth.123.tmp')
    leftover.write_bytes(b'half a checkpoint')
    train(toy_config, work_dir='out')
    assert not leftover.exists()


def test_published_name_is_the_files_sha256(toy_config):
    train(
        toy_config,
        work_dir='out',
        options=options(published_keys=['meta', 'state_dict']),
    )
    published = [p for p in Path('out').glob('epoch_2-*.pth')]
    assert len(published) == 1
    digest = hashlib.sha256(published[0].read_bytes()).hexdigest()
    assert published[0].name == f'epoch_2-{digest[:8]}.pth'
    assert sorted(torch.load(published[0])) == ['meta', 'state_dict']


def test_best_of_a_metric_that_is_not_there(toy_config):
    """The training goes on, and says which metrics there are."""
    train(
        toy_config,
        work_dir='out',
        options=options(save_best='loss_error', rule='less'),
    )
    assert weights() == ['epoch_1.pth', 'epoch_2.pth']
    log = max(Path('out').glob('*/*.log')).read_text()
    line = 'save_best: loss_error is none of the metrics (error, count)'
    assert log.count(line) == 1  # mmengine drops equal warnings
