"""What is printed and written, and the tool that does it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import report as benchmark_report
from mmssm.analysis.benchmark import routed_selective_scan as benchmark_op
from mmssm.analysis.benchmark import tree_scan as benchmark_tree
from mmssm.analysis.benchmark.measure import Case, Result
from mmssm.visualization.benchmark import draw_times

TOOL = Path(__file__).parents[3] / 'tools/analysis_tools/benchmark.py'
MIB = 2**20


def op_case(backward=False):
    phases = ['forward', 'forward + backward'][: 1 + backward]
    seconds = [[0.001], [0.004]]
    return Case(
        'stage',
        [
            Result('mmssm', dict(zip(phases, seconds)), MIB),
            Result(
                'other', {p: [2 * s[0]] for p, s in zip(phases, seconds)}, MIB
            ),
            Result('absent', note='not here'),
        ],
        dict(
            map_bytes=MIB // 4,
            floor_bytes=2 * MIB,
            forward_floor_bytes=MIB,
            bandwidth=4e3 * MIB,
        ),
    )


def model_case(size, seconds):
    results = [
        Result('one', dict(forward=[seconds]), 3 * MIB),
        Result('two', dict(forward=[2 * seconds]), 4 * MIB),
    ]
    facts = dict(size=size, batch=8, params=dict(one=10**6, two=25 * 10**6))
    return Case(f'{size} px', results, facts)


def cells(table):
    lines = [line for line in table.splitlines() if line.startswith('|')]
    assert len({len(line) for line in lines}) == 1  # aligned
    rows = [[c.strip() for c in line.strip('|').split('|')] for line in lines]
    assert set(''.join(rows[1])) == {':', '-'}
    return [rows[0], *rows[2:]]


def test_op_table():
    table = benchmark_report.op_table(op_case())
    assert table.startswith('### stage (a map: 0.25 MiB, floor: 2.00 MiB)\n')
    assert table.endswith('\n- absent: not here')
    head = ['implementation', 'ms', 'ratio', 'x floor', 'GB/s', 'peak MiB']
    assert cells(table) == [
        [*head, 'maps'],
        ['mmssm', '1.00', '1.00', '2.00', '2.10', '1.00', '4.00'],
        ['other', '2.00', '2.00', '4.00', '1.05', '1.00', '4.00'],
    ]


def test_op_table_tells_forward_from_backward():
    head, ours, _ = cells(benchmark_report.op_table(op_case(backward=True)))
    assert head[-3:] == ['forward ms', 'x floor', 'backward / forward']
    assert ours[1:4] == ['4.00', '1.00', '8.00']
    assert ours[-3:] == ['1.00', '4.00', '3.00']


def test_memory_that_is_not_known():
    case = op_case()
    case.results[1].peak = None
    *_, other = cells(benchmark_report.op_table(case))
    assert other[-2:] == ['-', '-']


def test_model_tables():
    cases = [model_case(224, 0.0101), model_case(448, 0.0505)]
    assert cells(benchmark_report.model_table(cases[0])) == [
        ['backbone', 'params M', 'ms', 'img/s', 'ratio', 'peak MiB'],
        ['one', '1.00', '10.1', '792', '1.00', '3.00'],
        ['two', '25.0', '20.2', '396', '2.00', '4.00'],
    ]
    cases[1].results[1] = Result('two', note='out of memory')
    assert cells(benchmark_report.growth_table(cases)) == [
        ['ms', '224 px', '448 px'],
        ['pixels', '50176', '200704 (4.00x)'],
        ['one', '10.1', '50.5 (5.00x)'],
        ['two', '20.2', '-'],
    ]


def test_ratios_without_the_first_row():
    case = model_case(224, 1.0)
    case.results[0] = Result('one', note='out of memory')
    assert cells(benchmark_report.model_table(case))[1][4] == '-'


def test_markdown_page_grows(tmp_path, capsys):
    page = tmp_path / 'results' / 'page.md'
    report = benchmark_report.Report('What', 'Chip X, 2 threads', ['How.'])
    report.add(benchmark_report.op_table(op_case()), op_case())
    report.write_markdown(page, 'python a.py')
    lines = page.read_text().splitlines()
    assert lines[:7] == [
        '# Chip X',
        '',
        '## What',
        '',
        '`python a.py`',
        '',
        '- Chip X, 2 threads',
    ]
    assert page.read_text().endswith(f'{report.tables[0]}\n')
    first = page.read_text()
    report.write_markdown(page, 'python b.py')
    assert page.read_text().startswith(first)
    assert page.read_text().count('\n# Chip X') == 0
    assert page.read_text().count('\n## What\n') == 2
    printed = capsys.readouterr().out
    assert printed == f'Chip X, 2 threads\nWhat\nHow.\n\n{report.tables[0]}\n'


@pytest.mark.parametrize(
    'cases',
    [
        [op_case(), op_case()],
        [model_case(224, 0.01)],
        [model_case(224, 0.01), model_case(448, 0.05)],
    ],
)
def test_pictures(cases, tmp_path):
    report = benchmark_report.Report('What', 'Chip', [], cases)
    draw_times(report, tmp_path / 'out.png')
    with Image.open(tmp_path / 'out.png') as picture:
        assert picture.format == 'PNG' and picture.size == (1200, 750)
        assert len(picture.convert('RGB').getcolors(1 << 20)) > 50
    draw_times(report, tmp_path / 'out.svg')
    drawn = (tmp_path / 'out.svg').read_text()
    for result in cases[0].results:
        assert (f'<!-- {result.name} -->' in drawn) is bool(result.seconds)
    assert all(f'<!-- {case.name} -->' in drawn for case in cases)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the tool in this process; returns status, stdout and stderr."""
    spec = importlib.util.spec_from_file_location('benchmark_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(benchmark_op, 'SCAN_SIZES', {'small': (3, 8, 2, 1)})
    monkeypatch.setattr(benchmark_tree, 'TREE_SIZES', {'small': (4, 8, 2)})
    monkeypatch.setitem(benchmark.COPIED_BYTES, 'cpu', 1 << 20)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [TOOL.name, *map(str, arguments)])
        try:
            tool.run_tool(tool.main)
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return (status, *capsys.readouterr())

    return run


def test_tool_writes_all_that_it_is_asked_for(run, tmp_path):
    files = [tmp_path / f'out.{kind}' for kind in ('json', 'md', 'png')]
    options = zip(('--json', '--markdown', '--plot'), files)
    status, out, error = run(
        *('op', '--rounds', 1, '--device', 'cpu', '--backward'),
        *[word for option in options for word in option],
    )
    assert (status, error) == (0, '')
    content = json.loads(files[0].read_text())
    assert content['command'].startswith('python benchmark.py op --rounds 1')
    assert 'forward + backward, batch 1, float32' in content['title']
    assert content['tables'] and content['remarks']
    (case,) = content['cases']
    ours, reference, composition = case['results']
    assert ours['name'] == 'mmssm' and ours['ratio'] == 1
    for result in (ours, reference, composition):
        times = result['seconds']['forward + backward']
        assert len(times) == 1 and times[0] > 0
        assert result['median_s']['forward + backward'] == times[0]
        assert result['peak_bytes'] >= case['facts']['map_bytes']
    table = out[out.index('###') :].strip()
    assert table in files[1].read_text()
    assert files[2].read_bytes().startswith(b'\x89PNG')


def test_tool_times_the_tree_scan(run):
    options = ('--only', 'small', '--dtype', 'bfloat16', '--device', 'cpu')
    status, out, _ = run('tree', '--rounds', 1, *options)
    assert status == 0
    assert 'Tree scan, forward, batch 1, bfloat16' in out
    assert '| chain, one way |' in out


def test_tool_times_a_default_model(run):
    status, out, _ = run('model', '--size', 32, '--rounds', 1, '--amp')
    assert status == 0
    assert 'forward, batch 1, bfloat16 autocast' in out
    assert '| VMamba tiny-s1l8 |' in out


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('model', '--arch', 'tiny-x'), "VMamba has no arch 'tiny-x'; known:"),
        (('model', '--config', 'no.py'), 'config no.py does not exist'),
        (('model', '--size', 2), 'images must be at least 4 pixels'),
        (('op', '--rounds', 0), 'at least one round is needed, got 0'),
        (('op', '--batch', 0), 'at least one image, got 0'),
        (('op', '--device', 'cuda:99'), 'device cuda:99 was asked for'),
        (('op', '--plot', 'a.doc'), 'cannot write a.doc: its suffix must be'),
        (('op', '--only', 'big'), "no size has 'big' in its name; known:"),
        (('op', '--states', 0), 'at least one state, got 0'),
        (
            ('tree', '--device', 'cpu', '--graphs'),
            'CUDA graphs need a GPU, got device cpu',
        ),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    status, out, error = run(*arguments)
    assert (status, out) == (2, '')
    assert error.startswith('benchmark.py: error: ') and message in error
    assert error.count('\n') == 1


def test_each_mode_lists_its_own_options_only(run):
    _, op, _ = run('op', '--help')
    _, model, _ = run('model', '--help')
    _, tree, _ = run('tree', '--help')
    for name in ('--compile', '--states'):
        assert name in op and name not in tree and name not in model
    for name in ('--backward', '--dtype', '--only', '--graphs'):
        assert name in op and name in tree and name not in model
    for name in ('--arch', '--beside', '--train', '--size', '--amp'):
        assert name in model and name not in op
