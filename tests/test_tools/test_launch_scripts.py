"""What the shell scripts hand to Python, seen by a stub interpreter."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SCRIPTS = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh')


@pytest.fixture
def call(tmp_path):
    """Run a script; returns the arguments that arrived, or the failure."""
    (tmp_path / 'bin').mkdir()
    # Slurm's srun ends in the command that it starts.
    for name in ('stub python', 'bin/srun'):
        stub = tmp_path / name
        stub.write_text(
            '#!/bin/bash\n'
            'printf "%s\\n" "threads=$OMP_NUM_THREADS" '
            '"path=$PYTHONPATH" "$@"\n'
        )
        stub.chmod(0o755)

    def call(script, *arguments, **variables):
        environment = {
            'PATH': f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'PYTHON': str(tmp_path / 'stub python'),
            **variables,
        }
        return subprocess.run(
            ['bash', str(TOOLS / script), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return call


def arguments(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize('script', [*SCRIPTS, 'launch_common.sh'])
def test_syntax(script):
    subprocess.run(['bash', '-n', str(TOOLS / script)], check=True)


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(call, script):
    done = call(script, '--help')
    assert done.returncode == 0
    assert done.stdout.startswith(f'Usage: bash tools/{script} ')
    assert 'Variables' in done.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_too_few_arguments(call, script):
    done = call(script, 'config.py')
    assert done.returncode == 2
    assert done.stderr.startswith('Usage: ')


@pytest.mark.parametrize('gpus', ['0', 'two', '-1', ''])
def test_bad_number_of_processes(call, gpus):
    done = call('dist_train.sh', 'config.py', gpus)
    assert done.returncode == 2
    assert f"GPUS is '{gpus}'" in done.stderr


def test_dist_train(call):
    got = arguments(
        call(
            'dist_train.sh',
            'my configs/a.py',
            '2',
            '--cfg-options',
            'a.b=[1, 2]',
            '--amp',
        )
    )
    assert f'path={TOOLS}/..' in got
    assert got[2:] == [
        f'{TOOLS}/torchrun.py',
        '--standalone',
        '--nproc_per_node',
        '2',
        f'{TOOLS}/train.py',
        'my configs/a.py',
        '--launcher',
        'pytorch',
        '--cfg-options',
        'a.b=[1, 2]',
        '--amp',
    ]


def test_dist_test(call):
    got = arguments(
        call('dist_test.sh', 'a.py', 'my run/epoch 1.pth', '8', '--tta')
    )
    assert got[-6:] == [
        f'{TOOLS}/test.py',
        'a.py',
        'my run/epoch 1.pth',
        '--launcher',
        'pytorch',
        '--tta',
    ]


def test_rendezvous_of_several_machines(call):
    got = arguments(
        call(
            'dist_train.sh',
            'a.py',
            '8',
            NNODES='2',
            NODE_RANK='1',
            MASTER_ADDR='10.0.0.1',
        )
    )
    assert got[3:11] == [
        '--nnodes',
        '2',
        '--node_rank',
        '1',
        '--master_addr',
        '10.0.0.1',
        '--master_port',
        '29500',
    ]
    got = arguments(call('dist_train.sh', 'a.py', '8', PORT='1234'))
    assert got[9:11] == ['--master_port', '1234']


def test_threads(call):
    cores = len(os.sched_getaffinity(0))
    for processes in (1, 2, 10000):
        got = arguments(call('dist_train.sh', 'a.py', str(processes)))
        assert got[0] == f'threads={max(1, cores // processes)}'
    got = arguments(call('dist_train.sh', 'a.py', '2', OMP_NUM_THREADS='7'))
    assert got[0] == 'threads=7'


def test_slurm_train(call, tmp_path):
    got = arguments(
        call(
            'slurm_train.sh',
            'gpu',
            'my job',
            'a.py',
            'work dir',
            '--amp',
            GPUS='16',
            GPUS_PER_NODE='4',
            SRUN_ARGS='--time 1:00 --qos=high',
        )
    )
    assert got[2:] == [
        '-p',
        'gpu',
        '--job-name',
        'my job',
        '--gres',
        'gpu:4',
        '--ntasks',
        '16',
        '--ntasks-per-node',
        '4',
        '--cpus-per-task',
        '5',
        '--kill-on-bad-exit=1',
        '--time',
        '1:00',
        '--qos=high',
        str(tmp_path / 'stub python'),
        '-u',
        f'{TOOLS}/train.py',
        'a.py',
        '--work-dir',
        'work dir',
        '--launcher',
        'slurm',
        '--amp',
    ]


def test_slurm_test(call):
    got = arguments(call('slurm_test.sh', 'gpu', 'job', 'a.py', 'b c.pth'))
    assert got[-5:] == [
        f'{TOOLS}/test.py',
        'a.py',
        'b c.pth',
        '--launcher',
        'slurm',
    ]
