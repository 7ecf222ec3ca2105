"""The implementations compute the same thing, and all are measured."""

import pytest
import torch

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import routed_selective_scan as benchmark_op
from mmssm.ops import (
    native,
    routed_selective_scan,
    routed_selective_scan_reference,
    selective_scan,
    selective_scan_reference,
)

SMALL = {'small': (3, 8, 2, 1)}


def gradients(scan, inputs):
    names = [n for n, t in inputs.items() if t.is_floating_point()]
    for name in names:
        inputs[name].requires_grad_()
    y = scan(**inputs)
    if y.shape[1] == inputs['A'].shape[1]:  # (B, C, L)
        y = y.mT
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    grads = torch.autograd.grad(y, [inputs[n] for n in names], weight)
    return y, dict(zip(names, grads))


def test_all_compute_the_same_values_and_gradients():
    inputs = benchmark_op.scan_inputs(5, 8, 2, 3, 2, dtype=torch.float64)
    want, want_grads = gradients(routed_selective_scan_reference, inputs)
    assert want.dtype == torch.float64
    got, grads = gradients(routed_selective_scan, inputs)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grads, want_grads)
    prepared = {
        name: tensor.detach()
        for name, tensor in benchmark_op.for_composition(inputs).items()
    }
    for scan in (selective_scan, selective_scan_reference):
        compose = benchmark_op._composition(scan)
        got, grads = gradients(compose, prepared)
        torch.testing.assert_close(got, want)
        for name in ('A', 'D', 'dt_weight', 'dt_bias'):
            torch.testing.assert_close(grads[name], want_grads[name])
        torch.testing.assert_close(grads['x'].mT, want_grads['x'])


def test_tokens_are_narrow_and_weights_are_not():
    inputs = benchmark_op.scan_inputs(2, 8, 2, 1, dtype=torch.bfloat16)
    narrow = {n for n, t in inputs.items() if t.dtype == torch.bfloat16}
    assert narrow == {'x', 'dt', 'B', 'C'}
    assert inputs['A'].dtype == torch.float32


def test_every_case_is_measured(monkeypatch):
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', SMALL)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    for backward in (False, True):
        report = benchmark_op.bench_op(rounds=1, backward=backward)
        (case,) = report.cases
        names = ['mmssm', 'reference', 'gather, scan (ours), merge']
        assert [r.name for r in case.results] == names
        phases = ['forward', 'forward + backward'][: 1 + backward]
        for result in case.results:
            assert list(result.seconds) == phases and not result.note
            # The result at least: a map.
            assert result.peak >= case.facts['map_bytes']


def test_floor_counts_each_input_and_result_once():
    inputs = benchmark_op.scan_inputs(3, 8, 2, 1, 2, dtype=torch.bfloat16)
    tokens, K = 2 * 9, 4
    maps = 2 * tokens * 8
    narrow = maps + 2 * tokens * K * (2 + 1 + 1)
    weights = 4 * K * 8 * (1 + 1 + 2 + 1)
    routes = 4 * K * 9
    facts = benchmark.op_facts(inputs, backward=False)
    forward = narrow + weights + routes + maps
    assert facts == dict(map_bytes=maps, floor_bytes=forward)
    # Read again, with the result's gradient; gradients written.
    both = 3 * (narrow + weights) + 2 * routes + 2 * maps
    facts = benchmark.op_facts(inputs, backward=True)
    assert facts == dict(
        map_bytes=maps, floor_bytes=both, forward_floor_bytes=forward
    )


def test_a_missing_native_op_is_told(monkeypatch):
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', {})
    monkeypatch.setitem(benchmark.COPIED_BYTES, 'cpu', 1 << 10)
    told = 'mmssm: no native op for cpu, the reference runs'
    assert told not in benchmark_op.bench_op().remarks
    monkeypatch.setattr(native, 'use_native', lambda tensor: False)
    assert told in benchmark_op.bench_op().remarks


def test_reference_is_left_out_where_it_is_too_large(monkeypatch):
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', SMALL)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    states = 2 * 4 * 8 * 9
    for limit, measured in ((states, True), (states - 1, False)):
        monkeypatch.setattr(benchmark_op, 'REFERENCE_STATES', limit)
        report = benchmark_op.bench_op(batch=2, rounds=1)
        assert bool(report.cases[0].results[1].seconds) is measured
        assert ('reference: left out' in report.tables[0]) is not measured


def test_compiled_variants_and_what_is_too_long_for_them(monkeypatch):
    def no_compiler(*inputs, **options):
        raise RuntimeError('no compiler\nhere')

    monkeypatch.setattr(torch, 'compile', lambda f, dynamic: no_compiler)
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', {'long': (9, 8, 2, 1)})
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    results = benchmark_op.bench_op(rounds=1, compiled=True).cases[0].results
    notes = {r.name: r.note for r in results[-3:]}
    assert notes == {
        'mmssm, compiled': 'failed: RuntimeError: no compiler',
        'reference, compiled': 'left out, 81 steps are too many for '
        'torch.compile to unroll',
        'gather, scan (ours), merge, compiled': 'failed: RuntimeError: no '
        'compiler',
    }


def test_states_are_those_asked_for(monkeypatch):
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', SMALL)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    floors = []
    for states in (None, 1, 5):
        report = benchmark_op.bench_op(rounds=1, states=states)
        assert (f', {states} states,' in report.title) is bool(states)
        floors.append(report.cases[0].facts['floor_bytes'])
    assert floors[0] == floors[1]
    # A of 4 routes and 8 channels, B and C of 9 tokens and 4 routes.
    assert floors[2] - floors[1] == 4 * 4 * (4 * 8 + 2 * 9 * 4)
    with pytest.raises(ValueError, match='at least one state, got 0'):
        benchmark_op.bench_op(states=0)
