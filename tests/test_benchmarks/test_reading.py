"""What the tools print is read as it is."""

import json

import pytest
from gpu_report.reading import METRICS, read, read_ncu, read_sanitizer

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1"
 failures="1" skipped="1" tests="5" time="1.5" timestamp="2026-01-01">
<testcase classname="tests.test_ops.test_a" name="test_one[cuda]" time="1" />
<testcase classname="tests.test_ops.test_a" name="test_two[cuda]" time="1" />
<testcase classname="tests.test_ops.test_a" name="test_far[cuda]" time="1">
<failure message="AssertionError: assert 2 &lt; 1&#10;more">trace</failure>
</testcase>
<testcase classname="tests.test_ops.test_b" name="test_set_up" time="0">
<error message="failed on setup">trace</error></testcase>
<testcase classname="tests.test_ops.test_b" name="test_big" time="0">
<skipped type="pytest.skip" message="needs 40 GB">here</skipped></testcase>
</testsuite></testsuites>"""


def junit(tmp_path, text):
    file = tmp_path / 'result'
    file.write_text(text)
    return read('tests', file, '')


def test_tests_are_counted_and_failures_named(tmp_path):
    told = junit(tmp_path, JUNIT)
    failures = told.result.pop('failures')
    assert told.result == dict(passed=2, failed=2, skipped=1)
    assert told.problem == '2 of 5 tests fail'
    assert failures == [
        dict(
            name='test_ops.test_a.test_far[cuda]',
            message='AssertionError: assert 2 < 1',
        ),
        dict(name='test_ops.test_b.test_set_up', message='failed on setup'),
    ]


@pytest.mark.parametrize(
    'case, problem',
    [
        ('<testcase classname="a" name="b" time="1"/>', ''),
        ('<testcase name="b"><skipped message="no GPU"/></testcase>', 'no t'),
        ('', 'no test ran'),
    ],
)
def test_skipped_tests_are_no_success(tmp_path, case, problem):
    told = junit(tmp_path, f'<testsuites><testsuite>{case}</testsuite>'
                 '</testsuites>')  # fmt: skip
    assert told.problem.startswith(problem)
    assert bool(told.problem) is bool(problem)


def test_json_is_read_as_it_is(tmp_path):
    file = tmp_path / 'result'
    assert read('json', file, 'log').result is None
    file.write_text(json.dumps(dict(a=1)))
    assert read('json', file, 'log').result == dict(a=1)


CLEAN = '========= COMPUTE-SANITIZER\nswept 145 calls\n'
INVALID = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at void mmssm::cuda::forward_kernel<float>(int)+0x1f0
=========     by thread (3,0,0) in block (0,0,0)
=========     Saved host backtrace up to driver entry point
=========
========= Invalid __global__ read of size 4 bytes
=========     at void mmssm::cuda::forward_kernel<float>(int)+0x1f0
=========     by thread (4,0,0) in block (0,0,0)
=========
========= Program hit cudaErrorLaunchFailure (error 719)
=========     Saved host backtrace
swept 145 calls
========= ERROR SUMMARY: 3 errors
"""


def test_sanitizer_counts_errors():
    told = read_sanitizer(INVALID)
    assert told.problem == '3 errors'
    assert (told.result['errors'], told.result['calls']) == (3, 145)
    assert told.result['most'] == [
        '2 x Invalid __global__ read of size 4 bytes at void mmssm::cuda::'
        'forward_kernel<float>(int)+0x1f0',
        '1 x Program hit cudaErrorLaunchFailure (error 719)',
    ]


@pytest.mark.parametrize(
    'summary, errors',
    [
        ('ERROR SUMMARY: 0 errors', 0),
        ('ERROR SUMMARY: 1 error', 1),
        ('RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)', 0),
        ('RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)', 2),
    ],
)
def test_sanitizer_summaries(summary, errors):
    told = read_sanitizer(f'{CLEAN}========= {summary}\n')
    assert told.result['errors'] == errors
    assert told.result['summary'] == summary
    assert bool(told.problem) is bool(errors)


def test_sanitizer_of_a_program_that_ended_early():
    told = read_sanitizer('========= ERROR SUMMARY: 0 errors\n')
    assert told.problem == 'the sweep did not reach its end'
    assert read_sanitizer(CLEAN).problem.endswith('printed no summary')


def test_sanitizer_on_a_device_that_it_cannot_watch():
    told = read_sanitizer('========= Error: Device not supported. Please...\n')
    assert told.not_possible == 'compute-sanitizer: Device not supported'


HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context",'
    '"Stream","Block Size","Grid Size","Device","CC","Section Name",'
    '"Metric Name","Metric Unit","Metric Value"'
)
FORWARD = (
    'void mmssm::cuda::<unnamed>::forward_kernel<float, c10::BFloat16, '
    '(mmssm::cuda::ForwardKind)0, (bool)1>(mmssm::cuda::ScanArgs<T1, T2>, '
    'mmssm::cuda::ScanPlan, T1 *)'
)


def row(number, kernel, metric, unit, value):
    cells = (
        *(number, 7, 'python3', '127.0.0.1', kernel, 1, 7),
        *('(96, 1, 1)', '(512, 4, 1)', 0, '9.0'),
        *('Command line profiler metrics', metric, unit, value),
    )
    return ','.join(f'"{cell}"' for cell in cells)


NCU = '\n'.join(
    [
        '==PROF== Connected to process 7 (/usr/bin/python3.12)',
        'case scan stage 1 float32',
        '==PROF== Profiling "forward_kernel" - 0: 0%....100% - 8 passes',
        'case tree stage 1 bfloat16',
        '==PROF== Profiling "climb_kernel" - 1: 0%....50%....100% - 8 passes',
        '==PROF== Disconnected from process 7',
        HEAD,
        row(0, FORWARD, METRICS['time'], 'ns', '1,234,500'),
        row(0, FORWARD, METRICS['registers'], 'register/thread', '128'),
        row(0, FORWARD, METRICS['stall barrier'], 'inst', '0.25'),
        row(0, FORWARD, METRICS['DRAM %'], '%', 'n/a'),
        row(1, 'climb_kernel', METRICS['time'], 'us', '12.5'),
        row(1, 'climb_kernel', 'another.sum', 'byte', '5'),
    ]
)


def test_ncu_table():
    told = read_ncu(NCU)
    assert not told.problem
    assert told.result['kernels'] == [
        {
            'case': 'scan stage 1 float32',
            'kernel': 'forward_kernel<float, BFloat16, 0, 1>',
            'grid': '512x4',
            'block': '96',
            'time': pytest.approx(1.2345e-3),
            'registers': 128,
            'stall barrier': 0.25,
        },
        {
            'case': 'tree stage 1 bfloat16',
            'kernel': 'climb_kernel',
            'grid': '512x4',
            'block': '96',
            'time': pytest.approx(12.5e-6),
        },
    ]


def test_ncu_without_permission_or_table():
    denied = (
        '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to '
        'access NVIDIA GPU Performance Counters on the target device 0.'
    )
    assert 'ERR_NVGPUCTRPERM' in read_ncu(denied).not_possible
    assert read_ncu('case a\n').problem == 'ncu printed no table'
