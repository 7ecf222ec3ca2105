"""What the tree scan is held against, and that all of it is measured."""

import pytest
import torch

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import tree_scan as benchmark_tree
from mmssm.ops import tree_scan, tree_scan_reference
from mmssm.scans.route import route_indices

SMALL = {'small': (4, 8, 2)}


@pytest.mark.parametrize('backward', [False, True])
def test_every_case_is_measured(backward, monkeypatch):
    monkeypatch.setattr(benchmark_tree, 'TREE_SIZES', SMALL)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    report = benchmark_tree.bench_tree(rounds=1, backward=backward)
    (case,) = report.cases
    names = ['mmssm', 'reference', 'chain, one way']
    assert [r.name for r in case.results] == names
    phases = ['forward', 'forward + backward'][: 1 + backward]
    for result in case.results:
        assert list(result.seconds) == phases and not result.note
        assert result.peak >= case.facts['map_bytes']


def test_inputs_are_a_tree_with_branches():
    inputs = benchmark_tree.tree_inputs(8, 6, 2, 2, dtype=torch.bfloat16)
    narrow = {n for n, t in inputs.items() if t.dtype == torch.bfloat16}
    assert narrow == {'x', 'dt', 'B'}
    token, parent = inputs['parents'].tolist()
    assert sorted(token) == list(range(64))
    children = [parent.count(step) for step in range(64)]
    assert max(children) > 1
    wide = {
        n: t.double() if t.is_floating_point() else t
        for n, t in inputs.items()
    }
    torch.testing.assert_close(tree_scan(**wide), tree_scan_reference(**wide))


def test_chain_passes_the_same_tokens_in_the_same_order():
    inputs = benchmark_tree.tree_inputs(4, 6, 2, 2, dtype=torch.float64)
    order = torch.from_numpy(route_indices('hilbert', 4, 4).copy())
    states = benchmark_tree.chain(**benchmark_tree.for_chain(inputs))
    # A path's way back alone: each state from the one before.
    delta = inputs['dt'] @ inputs['dt_weight'].T + inputs['dt_bias']
    delta = torch.nn.functional.softplus(delta)[:, order]
    decay = torch.exp(delta * inputs['A'])
    values = delta * (inputs['B'][..., None] * inputs['x'])[:, order]
    state = 0
    for step in range(16):
        state = decay[:, step] * state + values[:, step]
        torch.testing.assert_close(states[..., step], state)


def test_reference_is_left_out_where_it_is_too_large(monkeypatch):
    monkeypatch.setattr(benchmark_tree, 'TREE_SIZES', SMALL)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    for limit, measured in ((256, True), (255, False)):
        monkeypatch.setattr(benchmark_tree, 'REFERENCE_STATES', limit)
        report = benchmark_tree.bench_tree(batch=2, rounds=1)
        assert bool(report.cases[0].results[1].seconds) is measured
