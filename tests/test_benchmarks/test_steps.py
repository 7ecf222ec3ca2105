"""The plan fits its time, names every kernel and says what is absent."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_report import __main__ as program
from gpu_report import steps
from gpu_report.steps import KERNELS, ROOT, TESTS, find_tool, plan


def test_every_kernel_is_profiled():
    sources = [*ROOT.glob('csrc/**/*.cu*')]
    text = '\n'.join(source.read_text() for source in sources)
    found = re.findall(r'__global__[^;{]*?(\w+_kernel)\(', text)
    assert len(found) > 10
    assert set(found) == set(KERNELS)


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Both profilers, installed where the path does not lead."""
    for name in ('ncu', 'compute-sanitizer'):
        tool = tmp_path / 'version' / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text('#!/bin/sh\n')
        tool.chmod(0o755)
    monkeypatch.setattr(steps, 'TOOL_FOLDERS', (str(tmp_path),))
    return tmp_path


def test_large_tests_are_there():
    text = ''.join(f.read_text() for f in ROOT.glob('tests/test_ops/test_*'))
    assert re.findall(rf'def (test_\w*{steps.LARGE}\w*)\(device', text)


def test_tools_are_found_beside_the_path(tools):
    assert find_tool('ncu') == str(tools / 'version' / 'ncu')
    assert find_tool('no-such-tool') == 'no-such-tool'
    assert Path(find_tool('sh')).is_absolute()


def test_steps_on_a_gpu(tools):
    found = {step.name: step for step in plan('cuda')}
    assert not any(step.absent for step in found.values())
    # What takes time or memory that others would miss is alone.
    assert {name for name, step in found.items() if step.together} == {
        *('tests', 'golden', 'memcheck', 'racecheck', 'initcheck')
    }
    memcheck, initcheck = found['memcheck'], found['initcheck']
    assert 'kns=mmssm' in memcheck.command
    # Writes of kernels that are not watched would be missed.
    assert 'kns=mmssm' not in initcheck.command
    for step in (memcheck, initcheck):
        assert step.variables == dict(PYTORCH_NO_CUDA_MEMORY_CACHING='1')
    assert found['tests'].command[-len(TESTS) :] == TESTS
    large = found['tests-large'].command
    assert large[large.index('-k') + 1] == steps.LARGE
    assert f'not {steps.LARGE}' in found['tests'].command


def test_absent_tools_are_named(monkeypatch):
    monkeypatch.setattr(steps, 'TOOL_FOLDERS', ())
    monkeypatch.setenv('PATH', '')
    absent = {step.name: step.absent for step in plan('cuda') if step.absent}
    sanitizer = 'compute-sanitizer is not installed'
    assert absent == dict(
        memcheck=sanitizer,
        racecheck=sanitizer,
        initcheck=sanitizer,
        kernels='ncu is not installed',
    )


def test_steps_on_a_cpu(tools):
    found = {step.name: step for step in plan('cpu')}
    names = {name for name, step in found.items() if step.absent}
    assert names == {
        *('memcheck', 'racecheck', 'initcheck', 'kernels', 'tests-large')
    }
    assert {s.absent for s in found.values()} == {'', 'it needs a GPU'}


def test_chosen_steps():
    names = [s.name for s in plan('cpu', ['golden', 'check'])]
    assert names == ['check', 'golden']
    with pytest.raises(ValueError, match="no step 'speed'; there are: envi"):
        plan('cpu', ['speed'])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('--steps', 'speed'), "no step 'speed'; there are: environment,"),
        (('--budget', '0'), 'the budget must be at least one second, got 0'),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    out = tmp_path / 'out'
    assert program.main([str(out), '--device', 'cpu', *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('gpu_report.sh: error: ') and message in error
    assert error.count('\n') == 1 and not out.exists()


def test_nothing_to_measure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, 'ROOT', tmp_path)
    assert program.main([str(tmp_path / 'out'), '--device', 'cpu']) == 2
    assert 'build the extension, or copy it there' in capsys.readouterr().err
    monkeypatch.setattr(program.importlib.util, 'find_spec', lambda _: None)
    assert program.main([str(tmp_path / 'out'), '--device', 'cpu']) == 2
    assert 'has no torch; activate' in capsys.readouterr().err


def test_the_script_runs_it_from_anywhere(tmp_path):
    done = subprocess.run(
        [
            *('bash', str(ROOT / 'benchmarks' / 'gpu_report.sh')),
            *('out', '--device', 'cpu', '--steps', 'environment', 'kernels'),
        ],
        env=dict(PYTHON=sys.executable, PATH='/usr/bin:/bin'),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith('environment: passed')
    assert 'kernels: skipped, 0 s: it needs a GPU' in done.stdout
    files = {file.name for file in (tmp_path / 'out').iterdir()}
    assert files == {'report.json', 'report.md', 'logs.txt'}
    page = (tmp_path / 'out' / 'report.md').read_text()
    assert '| torch |' in page and str(ROOT) not in page
