"""Steps end in time, and none is in another's way."""

import subprocess
import sys
import threading
import time

import pytest
from gpu_report import running
from gpu_report.running import Runner
from gpu_report.steps import RESULT, Step


def step(name, code, *arguments, kind='json', limit=30, **options):
    """A step that runs Python."""
    command = (sys.executable, '-c', code, *arguments)
    return Step(name, '', kind, command, limit, **options)


def run(*steps, budget=100):
    found = list(Runner(budget).run(steps))
    return {outcome.name: outcome for outcome, _ in found}, dict(
        (outcome.name, log) for outcome, log in found
    )


def test_a_failing_step_does_not_stop_the_next(tmp_path):
    write = "import sys; open(sys.argv[1], 'w').write('{\"a\": 1}')"
    outcomes, logs = run(
        step('bad', 'print(7); raise SystemExit("too bad")'),
        step('good', write, RESULT),
    )
    bad, good = outcomes['bad'], outcomes['good']
    assert (bad.state, bad.result) == ('failed', None)
    assert bad.note == 'exit status 1: too bad'
    assert logs['bad'].split() == ['7', 'too', 'bad']
    assert (good.state, good.note, good.result) == ('passed', '', dict(a=1))
    assert (
        good.command.endswith('result.json')
        and '/' not in (good.command.split()[0])
    )


def test_a_step_that_takes_too_long_is_ended_with_its_children(tmp_path):
    child = tmp_path / 'child'
    code = (
        'import subprocess, sys, time\n'
        # An interrupt does not end it.
        'child = subprocess.Popen(["sh", "-c", "trap \'\' INT; sleep 60"])\n'
        f'open({str(child)!r}, "w").write(str(child.pid))\n'
        'time.sleep(60)'
    )
    start = time.monotonic()
    outcomes, logs = run(step('slow', code, limit=2), step('next', 'pass'))
    assert time.monotonic() - start < 20
    assert outcomes['slow'].state == 'timed out'
    assert outcomes['slow'].note == 'ended after 2 s'
    # It could still say where it was.
    assert 'KeyboardInterrupt' in logs['slow']
    assert outcomes['next'].state == 'passed'
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            _alive(int(child.read_text()))
            time.sleep(0.1)


def _alive(pid):
    state = subprocess.run(
        ['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True
    ).stdout.strip()
    if not state or state.startswith('Z'):
        raise ProcessLookupError(pid)


def test_a_step_that_ignores_the_interrupt_is_killed(monkeypatch):
    monkeypatch.setattr(running, 'LAST_WORDS', 0.2)
    code = (
        'import signal, time\n'
        'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        'time.sleep(60)'
    )
    outcomes, _ = run(step('stubborn', code, limit=1))
    assert outcomes['stubborn'].state == 'timed out'
    assert outcomes['stubborn'].seconds < 10


def test_what_a_step_told_before_its_end_counts(tmp_path):
    code = (
        'import sys, time\n'
        "open(sys.argv[1], 'w').write('{\"a\": 1}')\n"
        'time.sleep(60)'
    )
    outcomes, _ = run(step('slow', code, RESULT, limit=2))
    assert outcomes['slow'].state == 'timed out'
    assert outcomes['slow'].result == dict(a=1)


def test_steps_beyond_the_budget_are_skipped(monkeypatch):
    monkeypatch.setattr(running, 'LEAST', 2.5)
    outcomes, _ = run(
        step('first', 'import time; time.sleep(60)'),
        step('second', 'pass'),
        budget=3,
    )
    assert outcomes['first'].state == 'timed out'
    assert outcomes['first'].limit <= 3
    assert outcomes['second'].state == 'skipped'
    assert outcomes['second'].note == 'no time left of 3 s'


def test_what_is_absent_is_skipped():
    outcomes, _ = run(step('tool', 'raise 1', absent='it is not installed'))
    assert outcomes['tool'].state == 'skipped'
    assert outcomes['tool'].note == 'it is not installed'


def test_a_missing_program_fails_its_step():
    lost = Step('lost', '', 'json', ('/no/such/program',), 10)
    outcomes, logs = run(lost, step('next', 'pass'))
    assert outcomes['lost'].state == 'failed'
    assert 'exit status 127' in outcomes['lost'].note
    assert 'No such file' in logs['lost']
    assert outcomes['next'].state == 'passed'


def test_findings_fail_a_step_and_impossible_ones_are_skipped():
    clean = "print('swept 3 calls'); print('= ERROR SUMMARY: {} errors')"
    kinds = dict(
        good=clean.format(0),
        bad=clean.format(2),
        never="print('Error: Device not supported'); raise SystemExit(1)",
    )
    steps = [step(n, code, kind='sanitizer') for n, code in kinds.items()]
    outcomes, _ = run(*steps)
    states = {name: outcome.state for name, outcome in outcomes.items()}
    assert states == dict(good='passed', bad='failed', never='skipped')
    assert outcomes['bad'].note == '2 errors'


def test_only_neighbors_that_may_run_together(monkeypatch):
    monkeypatch.setattr(running.os, 'cpu_count', lambda: 3 * running.CORES)
    code = 'import time; time.sleep(1); print(time.time())'
    start = {}
    steps = [step(n, code, together=n in 'bcd') for n in 'abcde']
    _, logs = run(*steps)
    start = {name: float(log) for name, log in logs.items()}
    together = [start[name] for name in 'bcd']
    assert max(together) - min(together) < 0.9
    assert min(together) - start['a'] > 0.9
    assert start['e'] - max(together) > 0.9


def test_stopped_from_outside():
    runner = Runner(100)
    steps = [step('slow', 'import time; time.sleep(60)'), step('next', '')]
    threading.Timer(1, runner.stop).start()
    begun = time.monotonic()
    slow, following = (outcome for outcome, _ in runner.run(steps))
    assert time.monotonic() - begun < 20
    assert (slow.state, slow.note) == ('failed', 'stopped')
    assert following.state == 'skipped'


@pytest.mark.parametrize('cores, threads', [(1, 1), (2, 1), (6, 3), (64, 4)])
def test_threads_leave_cores_to_others(monkeypatch, cores, threads):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(running.os, 'cpu_count', lambda: cores)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['A'])"
    _, logs = run(step('threads', code, variables=dict(A='b')))
    assert logs['threads'].split() == [str(threads), 'b']
