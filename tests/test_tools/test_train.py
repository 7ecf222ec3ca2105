"""tools/train.py and tools/test.py as a user runs them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / 'tests' / 'data' / 'toy'
CONFIG = str(TOY / 'config.py')


@pytest.fixture
def environment():
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(ROOT), str(TOY)]),
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='',
    )


def run(tool, *arguments, env, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def wait_for(path, process):
    limit = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, 'the training ended by itself'
        assert time.monotonic() < limit, f'{path} did not appear'
        time.sleep(0.02)


def test_killed_training_resumes(environment, tmp_path):
    """Two gloo processes, SIGKILL in the second epoch, then ``--resume``."""
    work_dir = tmp_path / 'work dir'
    with open(tmp_path / 'log', 'w') as log:
        launcher = subprocess.Popen(
            [
                'bash',
                str(ROOT / 'tools' / 'dist_train.sh'),
                CONFIG,
                '2',
                '--work-dir',
                str(work_dir),
            ],
            # Three seconds an epoch, one a validation.
            env={**environment, 'PYTHON': sys.executable, 'TOY_PACE': '0.6'},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
        wait_for(work_dir / 'last_checkpoint', launcher)
        time.sleep(2)
        workers = psutil.Process(launcher.pid).children(recursive=True)
        launcher.kill()
        launcher.wait()

    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, 'processes outlive torchrun'
    log = (tmp_path / 'log').read_text()
    assert 'GPU number: 2' in log
    assert 'Epoch(train) [1][5/5]' in log  # 20 samples, 2 x 2 an iteration
    assert 'count: 6' in log  # validation gathers what both computed
    assert [p.name for p in work_dir.glob('*.pth')] == ['epoch_1.pth']

    resumed = run(
        'train.py',
        CONFIG,
        '--work-dir',
        str(work_dir),
        '--resume',
        env=environment,
        cwd=tmp_path,
    )

    assert resumed.returncode == 0, resumed.stderr
    assert 'resumed epoch: 1, iter: 5' in resumed.stdout + resumed.stderr
    last = work_dir / 'epoch_2.pth'
    assert last.exists()
    assert (work_dir / 'last_checkpoint').read_text() == str(last)


def test_errors_are_one_line(environment, tmp_path):
    failed = run(
        'train.py', 'no such config.py', env=environment, cwd=tmp_path
    )
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == (
        'train.py: error: config no such config.py does not exist; check the '
        'path'
    )
    assert 'Traceback' not in failed.stderr


def test_launched_error_is_short(environment, tmp_path):
    """torchrun adds its two log lines, not a traceback."""
    failed = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), 'none.py', '1'],
        env={**environment, 'PYTHON': sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert failed.returncode == 2
    assert failed.stderr.count('train.py: error: config none.py') == 1
    assert 'Traceback' not in failed.stderr
