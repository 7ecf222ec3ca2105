"""What the measuring programs launch and measure."""

import json
import sys

import pytest
import torch
from gpu_report.measure import golden, launches, models, ops, sweep

import mmssm
from mmssm.analysis.benchmark.report import Report

CPU = torch.device('cpu')


def test_sweep_meets_every_op_dtype_and_odd_shape(capsys):
    seen = {
        (op.__name__, next(iter(inputs.values())).dtype)
        for dtype in sweep.DTYPES
        for op, inputs in sweep.calls(CPU, dtype)
    }
    names = 'routed_selective_scan', 'selective_scan', 'state_fusion'
    assert seen == {
        (name, dtype)
        for name in (*names, 'tree_scan')
        for dtype in sweep.DTYPES
    }
    assert any(size[5] == 0 for size in sweep.SCANS)


def test_sweep_says_that_it_reached_its_end(monkeypatch, capsys):
    monkeypatch.setattr(sweep, 'SCANS', sweep.SCANS[:2])
    monkeypatch.setattr(sweep, 'DTYPES', (torch.bfloat16,))
    try:
        sweep.main('cpu')
    finally:
        torch.use_deterministic_algorithms(False)
    # 2 x 4 scans, 3 x 2 fusions and 3 trees, twice.
    assert capsys.readouterr().out == 'swept 34 calls\n'


def test_launches_are_named(capsys):
    launches.main('cpu', '1')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and len(set(lines)) == 9
    assert lines[0] == 'case scan stage 1 float32'
    assert lines[-1] == 'case tree stage 1 bfloat16'


def test_ops_are_measured_in_all_combinations():
    found = list(ops.settings('scan', small=False))
    found += ops.settings('more', small=False)
    keys = ('batch', 'states', 'dtype', 'backward', 'graphs')
    assert {tuple(known[k] for k in keys) for known in found} == {
        (batch, states, dtype, backward, batch == 1)
        for batch in (128, 1)
        for states in (1, 16)
        for dtype in ('float32', 'bfloat16')
        for backward in (False, True)
    }
    others = list(ops.settings('others', small=False))
    assert {known['op'] for known in others} == {'tree', 'fusion'}
    assert all('states' not in known for known in others)


def test_small_sizes():
    for part in ops.PARTS:
        for known in ops.settings(part, small=True):
            batch = 2 if part == 'scan' else 1
            assert (known['batch'], known['rounds']) == (batch, 1)
            assert not known['graphs']


@pytest.mark.parametrize('small', [True, False])
def test_nothing_is_measured_twice(small):
    """A picture shows one bar for each batch, dtype and number of states."""
    names = ('op', 'batch', 'states', 'dtype', 'backward')
    measured = [
        tuple(known.get(name) for name in names)
        for part in ops.PARTS
        for known in ops.settings(part, small)
    ]
    assert len(measured) == len(set(measured))


def run(module, monkeypatch, tmp_path, *arguments):
    file = tmp_path / 'result.json'
    words = [*arguments, '--device', 'cpu', '--json', str(file)]
    monkeypatch.setattr(sys, 'argv', ['program', *words])
    try:
        module.main()
    finally:
        status = json.loads(file.read_text()) if file.exists() else None
    return status


def test_ops_keep_what_a_command_repeats(monkeypatch, tmp_path):
    known = dict(
        op='tree',
        batch=1,
        dtype='bfloat16',
        backward=True,
        rounds=1,
        only=['FractalMamba-T stage 4'],
        graphs=False,
    )
    monkeypatch.setattr(ops, 'settings', lambda part, small: [known])
    (report,) = run(ops, monkeypatch, tmp_path, 'others')['reports']
    assert report['settings'] == known
    assert report['command'] == (
        'python tools/analysis_tools/benchmark.py tree --batch 1 --rounds 1 '
        "--dtype bfloat16 --backward --only 'FractalMamba-T stage 4' "
        '--device cpu'
    )
    assert report['cases'][0]['facts']['bandwidth'] > 0
    graphs = dict(known, op='scan', states=16, graphs=True, only=['a'])
    assert ops.command(graphs, 'cuda').endswith(
        '--dtype bfloat16 --states 16 --backward --graphs --only a '
        '--device cuda'
    )


@pytest.mark.parametrize('timm', [False, True])
def test_models_of_every_family(timm, monkeypatch, tmp_path):
    kinds = {arch.rpartition(':')[0] or 'VMamba' for arch in models.ARCHS}
    assert kinds == {n for n in mmssm.__all__ if n[0].isupper()}
    seen = []

    def bench(builders, sizes, **options):
        seen.append((len(builders), sizes, options['train']))
        return Report('Backbones', 'Chip', [])

    def backbones(archs=(), configs=(), beside=()):
        if 'vmamba-original' in beside or (beside and not timm):
            raise ValueError('it cannot be imported')
        return [*archs, *beside]

    monkeypatch.setattr(models, 'backbones', backbones)
    monkeypatch.setattr(models, 'bench_model', bench)
    first, second = run(models, monkeypatch, tmp_path, 'small')['reports']
    count = 8 if timm else 6
    assert seen == [(count, [32], False), (count, [32], True)]
    assert not first['settings']['train'] and second['settings']['train']
    assert second['command'].startswith(
        'python tools/analysis_tools/benchmark.py model --arch tiny-s1l8 Spat'
    )
    cuda = models.command(dict(second['settings'], amp=True), (), 'cuda')
    assert cuda.endswith('--train --amp --device cuda')
    assert ('--beside swin-tiny convnext-tiny' in second['command']) is timm
    assert second['command'].endswith(
        '--size 32 --batch 2 --rounds 1 --train --device cpu'
    )


def test_golden_cases_tried_on_a_cpu_are_known():
    assert set(golden.TRIED) <= set(golden.models.CASES)


def test_golden_errors():
    case = golden.measure('vim_tiny_cls', CPU)
    assert case['model'] == 'Vim tiny' and 'note' not in case
    assert case['float32'] < 1e-5 < case['bfloat16'] < 0.1


def test_a_golden_case_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(golden, 'convert_upstream', None)
    case = golden.measure('vim_tiny_cls', CPU)
    assert case['note'].startswith('TypeError: ') and 'float32' not in case


@pytest.mark.parametrize(
    'errors, bad',
    [
        ([1e-6, 2e-6, 1e-4], 0),
        ([1e-6, 3e-4, 1e-6], 1),
        ([1e-6, float('nan'), None], 2),
    ],
)
def test_golden_cases_beyond_the_limit(errors, bad, monkeypatch, tmp_path):
    left = list(errors)

    def measure(name, device):
        error = left.pop(0)
        return dict(name=name, **({'float32': error} if error else {}))

    monkeypatch.setattr(golden, 'measure', measure)
    if bad:
        with pytest.raises(SystemExit, match=f'{bad} of 3 cases are not as'):
            run(golden, monkeypatch, tmp_path)
    else:
        run(golden, monkeypatch, tmp_path)
    kept = json.loads((tmp_path / 'result.json').read_text())
    assert [case['name'] for case in kept['cases']] == list(golden.TRIED)
