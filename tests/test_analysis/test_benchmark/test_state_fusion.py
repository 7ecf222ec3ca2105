"""The implementations compute the same thing, and all are measured."""

import pytest
import torch

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import state_fusion as benchmark_fusion
from mmssm.ops import state_fusion_reference


def test_all_compute_the_same_values_and_gradients():
    # Larger than the reach of the taps, which padding by replication needs.
    inputs = benchmark_fusion.fusion_inputs(7, 6, 2, dtype=torch.float64)
    runs = benchmark_fusion._runs(inputs, backward=True)
    weights = [inputs['weight'], inputs['alpha']]
    want = state_fusion_reference(**inputs)
    want_grads = torch.autograd.grad(
        want, [inputs['x'], *weights], torch.ones_like(want)
    )
    for run in runs:
        y = run.phases['forward']()
        x_grad, *grads = run.phases['forward + backward']()
        if y.shape != want.shape:
            y, x_grad = (t.permute(0, 2, 3, 1) for t in (y, x_grad))
        torch.testing.assert_close(y, want)
        torch.testing.assert_close([x_grad, *grads], list(want_grads))


@pytest.mark.parametrize('backward', [False, True])
def test_every_case_is_measured(backward, monkeypatch):
    monkeypatch.setattr(benchmark_fusion, 'FUSION_SIZES', {'small': (7, 8)})
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    report = benchmark_fusion.bench_fusion(rounds=1, backward=backward)
    (case,) = report.cases
    assert [r.name for r in case.results] == [
        'mmssm',
        'three conv2d, NHWC',
        'three conv2d, NCHW',
        'one 11 x 11 conv2d, NHWC',
        'one 11 x 11 conv2d, NCHW',
    ]
    phases = ['forward', 'forward + backward'][: 1 + backward]
    for result in case.results:
        assert list(result.seconds) == phases and not result.note
        assert result.peak >= case.facts['map_bytes']


def test_floor_counts_each_input_and_result_once():
    inputs = benchmark_fusion.fusion_inputs(3, 8, 2, dtype=torch.bfloat16)
    a_map, weights = 2 * 2 * 9 * 8, 4 * (27 * 8 + 3)
    facts = benchmark.op_facts(inputs, backward=False)
    assert facts == dict(map_bytes=a_map, floor_bytes=2 * a_map + weights)
    facts = benchmark.op_facts(inputs, backward=True)
    assert facts['floor_bytes'] == 5 * a_map + 3 * weights
    assert facts['forward_floor_bytes'] == 2 * a_map + weights


def test_refuses_no_image():
    with pytest.raises(ValueError, match='at least one image, got 0'):
        benchmark_fusion.bench_fusion(batch=0)
