"""What the tools' outputs say."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# What is asked of ncu, by the names that tables use.
METRICS = {
    'time': 'gpu__time_duration.sum',
    'DRAM %': 'dram__throughput.avg.pct_of_peak_sustained_elapsed',
    'DRAM read': 'dram__bytes_read.sum',
    'DRAM written': 'dram__bytes_write.sum',
    'L2 %': 'lts__throughput.avg.pct_of_peak_sustained_elapsed',
    'L2 hits %': 'lts__t_sector_hit_rate.pct',
    'occupancy %': 'sm__warps_active.avg.pct_of_peak_sustained_active',
    'registers': 'launch__registers_per_thread',
    'issue %': 'smsp__issue_active.avg.pct_of_peak_sustained_active',
    'instructions': 'smsp__inst_executed.sum',
    **{
        f'stall {reason}': f'smsp__average_warps_issue_stalled_{reason}'
        '_per_issue_active.ratio'
        for reason in (
            'barrier',
            'lg_throttle',
            'long_scoreboard',
            'math_pipe_throttle',
            'mio_throttle',
            'not_selected',
            'short_scoreboard',
            'wait',
        )
    },
}
# To seconds and bytes.
UNITS = {
    **dict.fromkeys(('ns', 'nsecond'), 1e-9),
    **dict.fromkeys(('us', 'usecond'), 1e-6),
    **dict.fromkeys(('ms', 'msecond'), 1e-3),
    'Kbyte': 1e3,
    'Mbyte': 1e6,
    'Gbyte': 1e9,
}
CASE = 'case '  # begins a line of measure.launches before a call
PROFILED = '==PROF== Profiling "'
NO_COUNTERS = 'ERR_NVGPUCTRPERM'
SANITIZER_SUMMARY = re.compile(
    r'^=+ (?:ERROR SUMMARY: (\d+) error|'
    r'RACECHECK SUMMARY: (\d+) hazard).*$',
    re.MULTILINE,
)
SWEPT = re.compile(r'^swept (\d+) calls$', re.MULTILINE)  # by measure.sweep
NO_SANITIZER = re.compile(r'Device not supported|no CUDA-capable device')


@dataclass
class Told:
    """What a step's process told.

    Attributes:
        result (dict | None): Its findings; None if there are none.
        problem (str): What it found wrong, one line; empty if nothing.
        not_possible (str): Why the tool cannot work here; empty if it can.
    """

    result: dict | None
    problem: str = ''
    not_possible: str = ''


def read(kind: str, file: Path, log: str) -> Told:
    """Read a step's result from its file or its output, as ``kind`` says."""
    if kind == 'sanitizer':
        return read_sanitizer(log)
    if kind == 'ncu':
        return read_ncu(log)
    if not file.is_file():
        return Told(None)
    text = file.read_text()
    return read_tests(text) if kind == 'tests' else Told(json.loads(text))


def read_tests(xml: str) -> Told:
    """Counts and failures in pytest's JUnit file."""
    counts, failures = Counter(), []
    try:
        cases = ET.fromstring(xml).iter('testcase')
    except ET.ParseError:
        return Told(None, 'pytest wrote no whole result')
    for case in cases:
        bad = [c for c in case if c.tag in ('failure', 'error')]
        state = 'failed' if bad else 'passed'
        if not bad and case.find('skipped') is not None:
            state = 'skipped'
        counts[state] += 1
        if bad:
            message = (bad[0].get('message') or bad[0].text or '').split('\n')
            name = f'{case.get("classname", "")}.{case.get("name", "")}'
            failures.append(
                dict(name=name.removeprefix('tests.'), message=message[0])
            )
    result = dict(
        passed=counts['passed'],
        failed=counts['failed'],
        skipped=counts['skipped'],
        failures=failures,
    )
    problem = ''
    if failures:
        problem = f'{len(failures)} of {counts.total()} tests fail'
    elif not counts['passed']:
        problem = 'no test ran'
    return Told(result, problem)


def read_sanitizer(log: str) -> Told:
    """Errors that compute-sanitizer counted, and the most frequent ones."""
    if found := NO_SANITIZER.search(log):
        return Told(None, not_possible=f'compute-sanitizer: {found[0]}')
    summary, swept = SANITIZER_SUMMARY.search(log), SWEPT.search(log)
    if not summary:
        return Told(None, 'compute-sanitizer printed no summary')
    errors = int(summary[1] or summary[2])
    result = dict(
        errors=errors,
        calls=int(swept[1]) if swept else 0,
        summary=summary[0].lstrip('= '),
        most=_most_frequent(log),
    )
    if errors:
        return Told(result, f'{errors} errors')
    # A program that ends early has no errors either.
    return Told(result, '' if swept else 'the sweep did not reach its end')


def _most_frequent(log: str) -> list[str]:
    """Headlines of findings with the place below each, and their number."""
    findings = Counter()
    lines = [line.lstrip('= ').strip() for line in log.splitlines()]
    for line, place in zip(lines, [*lines[1:], '']):
        if re.match(r'(Invalid|Uninitialized|Misaligned|Error: |Warning: |'
                    r'Race|Barrier|Program hit|Out-of-)', line):  # fmt: skip
            at = place if place.startswith('at ') else ''
            findings[f'{line} {at}'.strip()] += 1
    return [f'{n} x {text}' for text, n in findings.most_common(5)]


def read_ncu(log: str) -> Told:
    """Kernels and their metrics in ncu's CSV: a row for each metric."""
    if NO_COUNTERS in log:
        return Told(
            None,
            not_possible='ncu may not read the hardware counters here '
            f'({NO_COUNTERS})',
        )
    lines = log.splitlines()
    start = [n for n, line in enumerate(lines) if line.startswith('"ID"')]
    if not start:
        return Told(None, 'ncu printed no table')
    cases = _cases(lines)
    names = {metric: name for name, metric in METRICS.items()}
    table = [line for line in lines[start[0] :] if line.startswith('"')]
    kernels = {}
    for row in csv.DictReader(table):
        if row['ID'] not in kernels:
            case = cases[len(kernels)] if len(kernels) < len(cases) else ''
            kernels[row['ID']] = _kernel(case, row)
        kernel = kernels[row['ID']]
        name, value = names.get(row['Metric Name']), row['Metric Value']
        try:
            number = float(value.replace(',', ''))
        except ValueError:  # n/a
            continue
        if name:
            kernel[name] = number * UNITS.get(row['Metric Unit'], 1)
    return Told(dict(kernels=list(kernels.values())))


def _cases(lines: list[str]) -> list[str]:
    """What each profiled launch belongs to, in their order."""
    cases, current = [], ''
    for line in lines:
        if line.startswith(CASE):
            current = line.removeprefix(CASE)
        elif line.startswith(PROFILED):
            cases.append(current)
    return cases


def _kernel(case: str, row: dict[str, str]) -> dict:
    return dict(
        case=case,
        kernel=_short(row['Kernel Name']),
        grid=_dimensions(row['Grid Size']),
        block=_dimensions(row['Block Size']),
    )


def _short(signature: str) -> str:
    """A kernel's name and template arguments, without namespaces and casts."""
    found = re.search(r'\w+_kernel\b', signature)
    if not found:
        return signature
    end, depth = found.end(), 0
    for end in range(found.end(), len(signature)):
        depth += {'<': 1, '>': -1}.get(signature[end], 0)
        if depth == 0:
            break
    inside = signature[found.end() : end + 1]
    if not inside.startswith('<'):
        return found[0]
    inside = re.sub(r'(?:\w+|<unnamed>|\(anonymous namespace\))::', '', inside)
    return found[0] + re.sub(r'\(\w+\)', '', inside)


def _dimensions(text: str) -> str:
    """'(8, 1, 1)' as '8'."""
    numbers = re.findall(r'\d+', text)
    while len(numbers) > 1 and numbers[-1] == '1':
        numbers.pop()
    return 'x'.join(numbers)
