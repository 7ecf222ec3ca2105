"""Files and summary, from results as the steps leave them."""

import json

import pytest
from gpu_report.page import page, stalls
from gpu_report.picture import draw
from gpu_report.report import LOG_BEGIN, LOG_END, Report
from gpu_report.running import Outcome
from gpu_report.summary import LINES, summary
from PIL import Image


def outcome(name, kind='json', state='passed', note='', result=None):
    command = f'python -m {name}'
    return Outcome(name, name, kind, state, 2.5, 60, command, note, result)


def result(name, seconds, note='', phase='forward', peak=2**30):
    times = {} if note else {phase: seconds}
    return dict(name=name, median_s=times, note=note, peak_bytes=peak)


def op_case(stage, phase):
    """0.2 ms where the floor takes 0.1 ms, and the others take 0.8 ms."""
    return dict(
        name=f'VMamba-T stage {stage}',
        facts=dict(floor_bytes=1e8, bandwidth=1e12, map_bytes=1e7),
        results=[
            result('mmssm', 2e-4, phase=phase),
            result('reference', 0, note='left out, too slow'),
            result('gather, scan (ours), merge', 8e-4, phase=phase),
            result('chain, one way', 4e-4, phase=phase),
        ],
    )


def op_report(op, batch, dtype, backward, **known):
    phase = 'forward + backward' if backward else 'forward'
    settings = dict(op=op, batch=batch, dtype=dtype, backward=backward)
    return dict(
        settings=dict(settings, **known),
        command='python benchmark.py op',
        title='Routed scan',
        machine='Chip',
        remarks=['How.'],
        tables=['### VMamba-T stage 1\n\n| a |\n| -- |'],
        cases=[op_case(stage, phase) for stage in (1, 2, 3, 4)],
    )


def op_reports(op, batch, **known):
    return [
        op_report(op, batch, dtype, backward, **known)
        for dtype in ('float32', 'bfloat16')
        for backward in (False, True)
    ]


def model_report(size, train):
    names = [f'Model {n}' for n in range(8)]
    last = result('Model 8', 0, note='out of memory')
    case = dict(
        facts=dict(size=size, batch=128),
        results=[result(n, 0.1) for n in names] + [last],
    )
    return dict(
        op_report('scan', 1, 'float32', train),
        settings=dict(size=size, batch=128, rounds=3, train=train, amp=True),
        cases=[case],
    )


def golden_case(name, error):
    known = dict(name=name, model='VMamba tiny', limit=2e-4)
    return dict(known, float32=error, bfloat16=0.02)


def kernel(number):
    return {
        'case': f'scan stage {number}',
        'kernel': 'forward_kernel<float>',
        'grid': '512',
        'block': '96',
        'time': 3.2e-4,
        'DRAM %': 41.5,
        'registers': 128,
        'stall wait': 0.5,
        'stall barrier': 2.25,
        'stall long_scoreboard': 7,
    }


CHECK = dict(
    accuracy=[
        dict(
            op='tree_scan',
            case='plain',
            dtype='float32',
            limit=1e-5,
            forward=1e-7,
            backward=3e-7,
            failure='',
        )
    ],
    wrong=[],
)
FAILURES = [dict(name=f'test_a.test_{n}', message='no') for n in range(30)]


def outcomes(failures=(), kernels=3):
    """All steps of a GPU."""
    more = [
        *op_reports('scan', 128, states=16),
        *op_reports('scan', 1, states=1),
        *op_reports('scan', 1, states=16),
    ]
    others = [*op_reports('tree', 128), *op_reports('fusion', 128)]
    tested = dict(
        passed=200, failed=len(failures), skipped=2, failures=list(failures)
    )
    golden = [golden_case('good', 1e-6), golden_case('bad', 3e-4)]
    golden.append(dict(name='lost', model='Vim', limit=2e-4, note='KeyError'))
    swept = dict(errors=0, calls=145, summary='ERROR SUMMARY: 0', most=[])
    sanitized = dict(kind='sanitizer', result=swept)
    return [
        outcome('environment', result=dict(device='NVIDIA H100', torch='2')),
        outcome('check', result=CHECK),
        outcome('tests', 'tests', result=tested),
        outcome('tests-large', 'tests', result=dict(tested, passed=4)),
        outcome('golden', state='failed', note='2', result=dict(cases=golden)),
        outcome('memcheck', **sanitized),
        outcome('racecheck', 'sanitizer', 'failed', 'no summary'),
        outcome('initcheck', **sanitized),
        outcome('ops-scan', result=dict(
            reports=op_reports('scan', 128, states=1)
        )),
        outcome('models-small', result=dict(
            reports=[model_report(224, train) for train in (False, True)]
        )),
        outcome('kernels', 'ncu', result=dict(
            kernels=[kernel(n) for n in range(kernels)]
        )),
        outcome('ops-others', result=dict(reports=others)),
        outcome('ops-more', result=dict(reports=more)),
        outcome('models-large', state='timed out', note='ended', result=dict(
            reports=[model_report(1024, train) for train in (False, True)]
        )),
    ]  # fmt: skip


def content(*found):
    return dict(
        device='cuda',
        begun='2026-01-01 00:00:00',
        budget=350,
        seconds=300.0,
        steps=[vars(o) for o in found],
    )


def test_files_grow_with_every_step(tmp_path):
    report = Report(tmp_path / 'out', 'cuda', 350)
    for number, found in enumerate(outcomes(), 1):
        report.add(found, f'log of {found.name}\n')
        kept = json.loads((tmp_path / 'out' / 'report.json').read_text())
        assert len(kept['steps']) == number
        text = (tmp_path / 'out' / 'report.md').read_text()
        assert f'({found.name})' in text
        assert (
            f'log of {found.name}'
            in (tmp_path / 'out' / 'logs.txt').read_text()
        )
    assert report.failed
    names = {file.name for file in (tmp_path / 'out').iterdir()}
    assert names == {'report.json', 'report.md', 'logs.txt'}


def test_only_what_did_not_pass_fails_a_report(tmp_path):
    report = Report(tmp_path, 'cuda', 350)
    report.add(outcome('a'), '')
    report.add(outcome('b', state='skipped', note='not here'), '')
    assert not report.failed
    report.add(outcome('c', state='timed out'), '')
    assert report.failed


def test_long_logs_keep_both_ends(tmp_path):
    report = Report(tmp_path, 'cuda', 350)
    report.add(outcome('a'), 'first' + 'x' * (LOG_BEGIN + LOG_END) + 'last')
    text = (tmp_path / 'logs.txt').read_text()
    assert len(text) < LOG_BEGIN + LOG_END + 1000
    assert 'first' in text and 'last' in text
    assert '... 9 characters left out ...' in text


def test_page_has_every_result():
    text = page(content(*outcomes(FAILURES)))
    assert text.startswith('# mmssm on NVIDIA H100\n')
    for line in (
        '| golden | failed | 2 | 2 |',
        '| tree_scan | plain | float32 | 1.0e-07 | 3.0e-07 | 1.0e-05 |  |',
        '| test_a.test_29 | no |',
        '| bad | VMamba tiny | 3.0e-04 | 2.0e-04 | 2.0e-02 |  |',
        '| lost | Vim | - | 2.0e-04 | - | KeyError |',
        'ERROR SUMMARY: 0; 145 calls of ops.',
        'Failed: no summary',
        '#### VMamba-T stage 1',
        'Timed out: ended',
    ):
        assert line in text
    row = next(x for x in text.splitlines() if 'forward_kernel' in x)
    assert '| 320.0 | 41.5 | - |' in row and '| 128 |' in row
    assert row.endswith('| long_scoreboard 7.0, barrier 2.2, wait 0.5 |')
    assert stalls(kernel(1), 1) == 'long_scoreboard 7.0'


def test_summary_says_what_matters():
    lines = summary(content(*outcomes()))
    text = '\n'.join(lines)
    assert lines[0] == 'mmssm on NVIDIA H100, 300 s'
    assert 'golden failed 2 s' in text and '  golden: 2' in text
    assert 'check: 1 cases, largest errors float32 3.0e-07' in text
    assert '\ntests: 200 passed, 0 failed, 2 skipped\n' in text
    assert '\ntests-large: 4 passed, 0 failed, 2 skipped\n' in text
    assert '3 cases' not in text and '2 cases, 1 beyond the limit' in text
    assert 'largest error 3.0e-04 (bad)' in text and '  lost: KeyError' in text
    assert (
        'memcheck 0 errors in 145 calls; racecheck no summary; initcheck'
    ) in text
    # 0.2 ms, twice the floor, four times as quick as the composition.
    assert '  B128 N1 float32 fwd: 0.2 (2.0, 4.0x) | 0.2 (2.0, 4.0x)' in text
    assert '  tree B128 bfloat16 f+b: 0.2 (2.0, 2.0x)' in text
    assert 'models, bfloat16 autocast, images/s' in text
    row = next(x for x in lines if x.startswith('  Model 0'))
    assert row.count('1280 (1.0)') == 4
    row = next(x for x in lines if x.startswith('  Model 8'))
    assert row.count('out of memory') == 4


@pytest.mark.parametrize(
    'failures, kernels', [((), 3), (FAILURES, 40), ((), 0)]
)
def test_summary_fits_sixty_lines(failures, kernels):
    lines = summary(content(*outcomes(failures, kernels)))
    assert len(lines) <= LINES == 60
    shortened = [line for line in lines if line.endswith('more in report.md')]
    assert bool(shortened) is (kernels == 40 or len(failures) > 0)


def test_replays_of_graphs_count_where_there_are_any():
    found = op_report('scan', 1, 'float32', False, states=1)
    for case in found['cases']:
        case['results'] += [
            result('mmssm, CUDA graph', 1e-4),
            result('gather, scan (ours), merge, CUDA graph', 3e-4),
        ]
    step = outcome('ops-more', result=dict(reports=[found]))
    assert '  B1 N1 float32 fwd: 0.1g (1.0, 3.0x)' in '\n'.join(
        summary(content(step))
    )


def test_summary_of_a_report_that_was_stopped_at_once():
    lost = outcome('environment', state='failed', note='torch finds no GPU')
    lines = summary(content(lost, outcome('check', state='skipped')))
    assert lines[0] == 'mmssm on a GPU, 300 s'
    assert lines[-1] == '  environment: torch finds no GPU'


def test_picture(tmp_path):
    draw(content(*outcomes()), tmp_path / 'times.png')
    with Image.open(tmp_path / 'times.png') as picture:
        assert picture.width > 800
        assert len(picture.convert('RGB').getcolors(1 << 20)) > 50
    draw(content(outcome('check')), tmp_path / 'none.png')
    assert not (tmp_path / 'none.png').exists()
