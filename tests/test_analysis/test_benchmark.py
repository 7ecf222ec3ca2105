"""The benchmark compares like with like."""

import torch

from mmssm.analysis import benchmark
from mmssm.ops import routed_selective_scan, routed_selective_scan_reference


def test_rounds_alternate_and_the_first_is_not_timed():
    calls = []
    first, second = benchmark.time_in_turns(
        'case',
        dict(a=lambda: calls.append('a'), b=lambda: calls.append('b')),
        rounds=3,
    )
    assert calls == ['a', 'b'] * 4
    assert len(first.seconds) == len(second.seconds) == 3
    assert benchmark.Timing('', '', [3.0, 1.0, 2.0]).median == 2.0


def test_both_implementations_compute_the_same():
    inputs = benchmark.scan_inputs(5, 8, 2, 3)
    torch.testing.assert_close(
        routed_selective_scan(**inputs),
        routed_selective_scan_reference(**inputs),
        rtol=1e-4,
        atol=1e-4,
    )


def test_every_case_is_timed(monkeypatch):
    monkeypatch.setattr(benchmark, 'SCAN_SIZES', {'small': (3, 8, 2, 1)})
    for backward in (False, True):
        ((native, reference),) = benchmark.time_scan(
            rounds=1, backward=backward
        )
        assert native.name == 'native' and reference.name == 'reference'
        assert native.median > 0 and reference.median > 0
