"""The report as a Markdown page."""

from collections.abc import Callable, Iterable

from .reading import METRICS

STALLS = [name for name in METRICS if name.startswith('stall ')]


def page(content: dict) -> str:
    """The page of a report's content, as in report.json."""
    steps = content['steps']
    parts = [
        f'# mmssm on {machine(content)}',
        f'Begun {content["begun"]}, {content["seconds"]:.0f} s, '
        f'`benchmarks/gpu_report.sh --device {content["device"]}`. What the '
        'figures mean: [benchmarks/README.md](../README.md).',
        table(
            ['step', 'state', 's', 'note'],
            (
                [s['name'], s['state'], f'{s["seconds"]:.0f}', s['note']]
                for s in steps
            ),
        ),
    ]
    for step in steps:
        parts.append(f'## {step["what"]} ({step["name"]})')
        parts.append(f'`{step["command"]}`')
        if step['note']:
            parts.append(f'{step["state"].capitalize()}: {step["note"]}')
        if step['result']:
            parts += _SECTIONS[_section(step)](step['result'])
    return '\n\n'.join(parts) + '\n'


def machine(content: dict) -> str:
    """The device's name, as far as it is known."""
    for step in content['steps']:
        if step['name'] == 'environment' and step['result']:
            return step['result']['device']
    return {'cpu': 'a CPU', 'cuda': 'a GPU'}[content['device']]


def table(head: list[str], rows: Iterable[list]) -> str:
    """A Markdown table; cells are text."""
    lines = [head, ['---'] * len(head), *rows]
    cells = ([str(cell).replace('|', '\\|') for cell in row] for row in lines)
    return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def _section(step: dict) -> str:
    """Which function shows a step's result."""
    return (
        step['name'].split('-')[0] if step['kind'] == 'json' else step['kind']
    )


def _environment(result: dict) -> list[str]:
    return [table(['', ''], map(list, result.items()))]


def _check(result: dict) -> list[str]:
    head = ['op', 'case', 'dtype', 'forward', 'backward', 'limit', 'failure']
    rows = [
        [
            *(case['op'], case['case'], case['dtype']),
            *(exponent(case[k]) for k in ('forward', 'backward', 'limit')),
            case['failure'],
        ]
        for case in result['accuracy']
    ]
    return [
        *(f'- {line}' for line in result['wrong']),
        'Largest difference from the references in float64, relative to the '
        'largest value.',
        table(head, rows),
    ]


def _tests(result: dict) -> list[str]:
    counts = ', '.join(
        f'{result[state]} {state}' for state in ('passed', 'failed', 'skipped')
    )
    rows = [[f['name'], f['message']] for f in result['failures']]
    return [
        counts + '.',
        *([table(['test', 'message'], rows)] if rows else []),
    ]


def _golden(result: dict) -> list[str]:
    rows = [
        [
            *(case['name'], case['model']),
            *(exponent(case.get(k)) for k in ('float32', 'limit', 'bfloat16')),
            case.get('note', ''),
        ]
        for case in result['cases']
    ]
    head = ['case', 'model', 'float32', 'limit', 'bfloat16 autocast', 'note']
    return [
        'Largest difference from the outputs of the original code, relative '
        'to the largest output; float32 without TF32.',
        table(head, rows),
    ]


def _reports(result: dict) -> list[str]:
    """Of ops and models: tables as the benchmark prints them."""
    parts = []
    for report in result['reports']:
        remarks = [report['machine'], *report['remarks']]
        parts += [
            f'### {report["title"]}',
            f'`{report["command"]}`',
            '\n'.join(f'- {remark}' for remark in remarks),
            *(text.replace('### ', '#### ', 1) for text in report['tables']),
        ]
    return parts


def _sanitizer(result: dict) -> list[str]:
    found = '\n'.join(f'- {line}' for line in result['most'])
    return [
        f'{result["summary"]}; {result["calls"]} calls of ops.',
        *([found] if found else []),
    ]


def _ncu(result: dict) -> list[str]:
    plain = [name for name in METRICS if not name.startswith('stall ')]
    head = ['case', 'kernel', 'grid', 'block', *_HEADS.values(), 'stalls']
    rows = [
        [
            *(kernel[k] for k in ('case', 'kernel', 'grid', 'block')),
            *(metric(name, kernel.get(name)) for name in plain),
            stalls(kernel, 4),
        ]
        for kernel in result['kernels']
    ]
    return [
        'One launch of each, with the caches emptied before. Stalls: warps '
        'that wait for each reason, on average per instruction issued.',
        table(head, rows),
    ]


_HEADS = {
    name: {'time': 'us', 'DRAM read': 'MB read', 'DRAM written': 'MB written',
           'instructions': '10^6 instructions'}.get(name, name)
    for name in METRICS
    if not name.startswith('stall ')
}  # fmt: skip


def metric(name: str, value: float | None) -> str:
    """A metric's value in the unit of its column."""
    if value is None:
        return '-'
    if name == 'registers':
        return f'{value:.0f}'
    scale = {'time': 1e6}.get(name, 1e-6 if '%' not in name else 1)
    return f'{value * scale:.1f}'


def stalls(kernel: dict, most: int) -> str:
    """The most frequent reasons to wait."""
    found = sorted(
        ((kernel[name], name) for name in STALLS if name in kernel),
        reverse=True,
    )
    return ', '.join(
        f'{name.removeprefix("stall ")} {value:.1f}'
        for value, name in found[:most]
    )


def exponent(value: float | None) -> str:
    """An error, with two digits."""
    return '-' if value is None else f'{value:.1e}'


_SECTIONS: dict[str, Callable[[dict], list[str]]] = {
    'environment': _environment,
    'check': _check,
    'tests': _tests,
    'golden': _golden,
    'ops': _reports,
    'models': _reports,
    'sanitizer': _sanitizer,
    'ncu': _ncu,
}
