"""What is measured: turns, medians, memory."""

from functools import partial

import pytest
import torch

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark.measure import (
    Case,
    Result,
    Run,
)

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def one_call_per_turn(monkeypatch):
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)


def recorder(calls, name, *phases):
    return {p: partial(calls.append, (name, p)) for p in phases}


def test_rounds_take_turns_after_a_warm_up():
    calls = []
    runs = [Run(name, recorder(calls, name, 'one', 'two')) for name in 'ab']
    first, second = benchmark.measure('case', runs, 3, CPU)
    turn = [(name, phase) for name in 'ab' for phase in ('one', 'two')]
    assert calls[-12:] == turn * 3
    # Warmed up, tried, and once more for the memory.
    a_one, a_two, b_one, b_two = turn
    warm_up = [a_one] * 2 + [a_two] * 3 + [b_one] * 2 + [b_two] * 3
    assert calls[:-12] == warm_up
    for result in (first, second):
        assert {p: len(s) for p, s in result.seconds.items()} == dict(
            one=3, two=3
        )


def test_a_slow_one_stops_early_and_a_quick_one_repeats(monkeypatch):
    calls = []
    slow = Run('slow', recorder(calls, 'slow', 'p'), rounds=1)
    quick = Run('quick', recorder(calls, 'quick', 'p'))
    results = benchmark.measure('case', [slow, quick], 3, CPU)
    assert [len(r.seconds['p']) for r in results] == [1, 3]
    calls.clear()
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 1e-3)
    benchmark.measure('case', [quick], 1, CPU)
    assert len(calls) > 10


def test_median_and_ratio_are_those_of_the_last_phase():
    base = Result('base', dict(part=[9.0], whole=[3.0, 1.0, 2.0]))
    other = Result('other', dict(whole=[5.0]))
    absent = Result('absent', note='why')
    case = Case('case', [base, other, absent])
    assert base.medians == dict(part=9.0, whole=2.0)
    assert case.ratio(base) == 1.0 and case.ratio(other) == 2.5
    assert case.ratio(absent) is None


def fail(error):
    raise error


def test_failures_leave_out_what_may_be_left_out():
    runs = [
        Run('full', dict(p=partial(fail, torch.OutOfMemoryError('x')))),
        Run('odd', dict(p=partial(fail, KeyError('a'))), optional=True),
        Run('off', dict(p=partial(fail, KeyError('a'))), note='not here'),
    ]
    results = benchmark.measure('case', runs, 1, CPU)
    assert [r.note for r in results] == [
        'out of memory',
        "failed: KeyError: 'a'",
        'not here',
    ]
    assert not any(r.seconds for r in results)
    runs[1].optional = False
    with pytest.raises(KeyError):
        benchmark.measure('case', runs, 1, CPU)


def test_peak_counts_what_is_alive_at_once():
    given = torch.ones(1 << 20)

    def call():
        a = given + 1  # 4 MiB
        b = a + 1  # 8 MiB
        del a
        c = b[:10] + 1
        del b
        return given * c[0]  # 4 MiB and crumbs

    assert benchmark.peak_bytes(call, CPU) == pytest.approx(8 << 20, rel=1e-3)
    assert benchmark.peak_bytes(lambda: given[3:], CPU) == 0


@pytest.mark.parametrize(
    'name, threads, message',
    [
        ('tpu', None, "cpu, cuda or cuda:N, got 'tpu'"),
        ('cuda:99', None, 'device cuda:99 was asked for, but PyTorch finds'),
        ('cpu', 0, 'at least one thread is needed, got 0'),
    ],
)
def test_bad_device_or_threads(name, threads, message):
    with pytest.raises(ValueError, match=message):
        benchmark.prepare(name, threads)


def test_machine_names_what_times_depend_on():
    line = benchmark.machine(benchmark.prepare('cpu', torch.get_num_threads()))
    assert f'{torch.get_num_threads()} threads' in line
    assert torch.__version__ in line


def test_no_rounds():
    with pytest.raises(ValueError, match='at least one round'):
        benchmark.measure('case', [], 0, CPU)


def test_copy_bandwidth_counts_what_is_read_and_written(monkeypatch):
    copied = []

    def seconds(call, repeats, device):
        copied.append((call().numel(), repeats))
        return 0.25

    monkeypatch.setattr(benchmark, '_seconds', seconds)
    monkeypatch.setitem(benchmark.COPIED_BYTES, 'cpu', 1 << 20)
    assert benchmark.copy_bandwidth(CPU) == 2 * (1 << 20) / 0.25
    assert set(copied) == {(1 << 20, 1)}


def test_a_run_whose_memory_is_not_to_be_measured():
    calls = []
    run = Run('run', recorder(calls, 'run', 'p'), allocates=False)
    (result,) = benchmark.measure('case', [run], 1, CPU)
    assert result.peak is None and len(calls) == 3


def test_runs_in_graphs_may_fail():
    run = Run('op', dict(p=torch.zeros), rounds=2)
    replayed = benchmark.in_graph(run)
    assert (replayed.name, replayed.rounds) == ('op, CUDA graph', 2)
    assert replayed.optional and not replayed.allocates
    assert list(replayed.phases) == ['p']
    if not torch.cuda.is_available():
        (result,) = benchmark.measure('case', [replayed], 1, CPU)
        assert result.note.startswith('failed: ')


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_a_graph_replays_the_call():
    device = torch.device('cuda')
    total = torch.zeros((), device=device)
    run = benchmark.in_graph(Run('op', dict(p=lambda: total.add_(1))))
    run.phases['p']()
    total.zero_()
    for _ in range(3):
        run.phases['p']()
    assert total.item() == 3
