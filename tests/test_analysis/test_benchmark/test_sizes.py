"""Which sizes are measured, and what the tables are read with."""

import pytest
import torch

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import sizes as benchmark_sizes
from mmssm.analysis.benchmark import state_fusion as benchmark_fusion
from mmssm.analysis.benchmark.sizes import choose

SIZES = {'A stage 1': (1,), 'A stage 2': (2,), 'B stage 1': (3,)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    sizes = {f'{n} x {n}': (n, 8) for n in (7, 8)}
    monkeypatch.setattr(benchmark_fusion, 'FUSION_SIZES', sizes)
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)
    monkeypatch.setitem(benchmark.COPIED_BYTES, 'cpu', 1 << 10)


@pytest.mark.parametrize(
    'only, numbers',
    [((), [1, 2, 3]), (('A',), [1, 2]), (('stage 1', 'A stage 2'), [1, 2, 3])],
)
def test_sizes_are_chosen_by_parts_of_their_names(only, numbers):
    assert [n for (n,) in choose(SIZES, only).values()] == numbers


def test_a_part_of_no_name():
    with pytest.raises(ValueError, match="no size has 'C' in its name; known"):
        choose(SIZES, ['A', 'C'])


def test_only_what_is_chosen_is_measured():
    report = benchmark_fusion.bench_fusion(rounds=1, only=['8'])
    assert [case.name for case in report.cases] == ['8 x 8']


def test_floor_is_held_against_the_measured_bandwidth(monkeypatch):
    monkeypatch.setattr(benchmark_sizes, 'copy_bandwidth', lambda _: 5e9)
    report = benchmark_fusion.bench_fusion(rounds=1)
    assert all(case.facts['bandwidth'] == 5e9 for case in report.cases)
    assert any('reads and writes 5 GB/s' in r for r in report.remarks)


def test_graphs_need_a_gpu():
    with pytest.raises(ValueError, match='CUDA graphs need a GPU, got dev'):
        benchmark_fusion.bench_fusion(graphs=True)


def test_no_round():
    with pytest.raises(ValueError, match='at least one round'):
        benchmark_fusion.bench_fusion(rounds=0)


def test_drawn_numbers_are_the_same_each_time():
    for dtype in (torch.float32, torch.bfloat16):
        drawn = [
            benchmark_sizes.draw('cpu', dtype)(3, 4, like=torch.float64)
            for _ in range(2)
        ]
        assert torch.equal(*drawn) and drawn[0].dtype == torch.float64
        assert 0 < drawn[0].std() < 2
