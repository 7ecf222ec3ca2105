"""What the command prints, writes and returns."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console

import mmssm.ops
from mmssm.check import (
    Speed,
    environment,
    problems,
    speed,
)
from mmssm.check import __main__ as command
from mmssm.check.accuracy import check
from mmssm.check.cases import cases
from mmssm.ops import native


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process; gives its exit code and output."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['check', *arguments])
        code = command.main()
        return code, capsys.readouterr().out

    return run


def test_as_a_user_runs_it(tmp_path):
    path = tmp_path / 'check.json'
    arguments = ['--quick', '--device', 'cpu', '--json', str(path)]
    done = subprocess.run(
        [sys.executable, '-m', 'mmssm.check', *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ['mmssm', mmssm.__version__]
    assert lines[-1] == 'All right.'
    assert sum(line.split()[-1:] == ['ok'] for line in lines) == 16
    assert '\x1b' not in done.stdout
    assert max(map(len, lines[-19:])) <= 80  # a terminal has no more
    found = json.loads(path.read_text())
    assert found['wrong'] == [] and found['speed'] == []
    assert found['environment']['torch'].startswith(torch.__version__)
    assert all(result['passed'] for result in found['accuracy'])
    assert found['command'].startswith('python -m mmssm.check --quick')


def test_broken_op(monkeypatch, run, tmp_path):
    right = mmssm.ops.state_fusion
    monkeypatch.setattr(
        mmssm.ops, 'state_fusion', lambda **given: -right(**given)
    )
    path = tmp_path / 'check.json'
    code, out = run('--quick', '--device', 'cpu', '--json', str(path))
    assert code == 1
    rows = [line for line in out.splitlines() if 'WRONG' in line]
    tables = [row for row in rows if row.rstrip().endswith('WRONG')]
    assert len(tables) == 4 and all('state_fusion' in row for row in tables)
    verdict = [row for row in rows if row.startswith('WRONG: state_fusion')]
    assert len(verdict) == 8  # two cases, four dtypes
    assert 'report all of this page' in verdict[0]
    assert 'All right' not in out
    assert json.loads(path.read_text())['wrong'][0].startswith('state_fusion')


@pytest.mark.parametrize(
    'op',
    ['routed_selective_scan', 'selective_scan', 'state_fusion', 'tree_scan'],
)
def test_result_that_is_not_finite(monkeypatch, run, tmp_path, op):
    right = getattr(mmssm.ops, op)
    monkeypatch.setattr(
        mmssm.ops, op, lambda **given: right(**given) * float('nan')
    )
    # Of all cases those of this op: the others are as they are.
    monkeypatch.setattr(
        command,
        'accuracy',
        lambda device: [
            check(case, torch.device(device), torch.float32, 1e-3)
            for case in cases()
            if case.op == op
        ],
    )
    path = tmp_path / 'check.json'
    code, out = run('--quick', '--device', 'cpu', '--json', str(path))
    assert code == 1 and f'WRONG: {op} ' in out

    def refuse(name):
        raise ValueError(f'{name} is not JSON')

    found = json.loads(path.read_text(), parse_constant=refuse)
    wrong = [r for r in found['accuracy'] if not r['passed']]
    assert {r['op'] for r in wrong} == {op}
    assert {r['forward'] for r in wrong} == {None}


def test_times_fit_a_terminal(capsys):
    time = Speed(
        op='routed_selective_scan',
        size='32x28x28x192, 4 routes',
        device='cuda',
        seconds=0.01234,
        reference_seconds=12.345,
        floor_seconds=1e-4,
    )
    command.print_times(Console(width=80), [time])
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[0] == 'routed_selective_scan' and row[-3:] == [
        '12.34',
        '12345',
        '0.100',
    ]


def test_failing_op(monkeypatch, run):
    def fail(**given):
        raise RuntimeError('no kernel image')

    monkeypatch.setattr(mmssm.ops, 'tree_scan', fail)
    code, out = run('--quick', '--device', 'cpu')
    assert code == 1
    assert 'failed: RuntimeError: no kernel image' in out


def test_failing_measurement_leaves_the_errors(monkeypatch, run, tmp_path):
    def fail(device):
        raise RuntimeError('out of\nmemory')
        yield

    monkeypatch.setattr(command, 'speed', fail)
    path = tmp_path / 'check.json'
    code, out = run('--device', 'cpu', '--json', str(path))
    assert code == 1
    assert out.splitlines()[-1] == 'WRONG: no times on cpu: out of memory'
    assert sum(line.split()[-1:] == ['ok'] for line in out.splitlines()) == 16
    assert json.loads(path.read_text())['wrong']


def test_fault_of_a_gpu_leaves_the_cpu(monkeypatch, run):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        command,
        'environment',
        lambda: dict(GPU='one of another architecture'),
    )
    monkeypatch.setattr(
        command, 'problems', lambda devices: ['old'] * (devices == ['cuda'])
    )
    code, out = run('--quick')
    assert code == 1 and out.splitlines()[-1] == 'WRONG: old'
    assert sum(line.split()[-1:] == ['ok'] for line in out.splitlines()) == 16


def test_missing_extension(monkeypatch, run):
    monkeypatch.setattr(native, '_PROBLEM', 'there is no _ext.so')
    code, out = run()
    assert code == 1
    last = out.splitlines()[-1]
    assert last.startswith('WRONG: no native op: there is no _ext.so; build')
    assert any(line.startswith('Python ') for line in out.splitlines())


def test_extension_for_another_torch(monkeypatch, run):
    built = dataclasses.replace(native.build_info(), torch='1.13.0')
    monkeypatch.setattr(native, 'build_info', lambda: built)
    monkeypatch.setattr(native, '_PROBLEM', native._load_extension())
    code, out = run()
    assert code == 1
    last = out.splitlines()[-1]
    assert f'built for torch 1.13.0, not {torch.__version__}' in last
    assert native.HOW_TO_BUILD in last


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu(run):
    code, out = run('--device', 'cuda')
    assert code == 1
    assert 'finds no GPU' in out.splitlines()[-1]


def test_extension_without_cuda_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(native, '_DEVICES', frozenset({'cpu', 'meta'}))
    (line,) = problems(['cpu', 'cuda'])
    assert 'no CUDA kernels' in line and 'FORCE_CUDA=1' in line
    assert problems(['cpu']) == []


def test_gpu_of_another_architecture(monkeypatch):
    devices = frozenset({'cpu', 'cuda', 'meta'})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(native, '_DEVICES', devices)
    monkeypatch.setattr(
        native,
        'missing_architecture',
        lambda index: 'GPU 1 cannot' if index else '',
    )
    assert problems(['cpu', 'cuda']) == ['GPU 1 cannot']


def test_environment_tells_what_runs(monkeypatch):
    found = environment()
    assert found['instructions'] in ('AVX-512', 'AVX2', 'SSE2', 'generic')
    built = native.build_info()
    assert f'for torch {built.torch}' in found['extension']
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'Python'):
        assert found[name][0].isdigit()


def test_instruction_set_can_be_lowered():
    script = 'import torch, mmssm\nprint(torch.ops.mmssm._instruction_set())'
    done = subprocess.run(
        [sys.executable, '-c', script],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': 'default'},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] in ('SSE2', 'generic')


def test_times():
    times = list(speed('cpu'))
    assert [t.op for t in times] == [
        'routed_selective_scan',
        'selective_scan',
        'state_fusion',
        'tree_scan',
    ]
    for time in times:
        assert 0 < time.floor_seconds and 0 < time.seconds
        assert time.reference_seconds > 0
