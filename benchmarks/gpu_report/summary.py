"""The lines that a person reads first: at most sixty."""

from .page import exponent, machine, metric, stalls

LINES = 60
OTHERS = 'in report.md'
STATES = {'forward': False, 'forward + backward': True}


def summary(content: dict) -> list[str]:
    """The summary of a report's content, as in report.json.

    Where it would be too long, the longest sections lose their last lines.
    """
    steps = content['steps']
    sections = [
        _head(content),
        _checked(steps),
        _tested(steps),
        _golden(steps),
        _sanitized(steps),
        _scans(steps),
        _other_ops(steps),
        _models(steps),
        _kernels(steps),
    ]
    sections = [section for section in sections if section]
    while sum(map(len, sections)) > LINES:
        longest = max(sections, key=len)
        del longest[-2:]
        longest.append(f'  ... more {OTHERS}')
    return [line for section in sections for line in section]


def _head(content: dict) -> list[str]:
    states = [
        f'{s["name"]} {s["state"]} {s["seconds"]:.0f} s'
        for s in content['steps']
    ]
    rows = [' | '.join(states[i : i + 4]) for i in range(0, len(states), 4)]
    notes = [
        f'  {s["name"]}: {s["note"][:150]}'
        for s in content['steps']
        if s['note'] and s['state'] != 'skipped'
    ]
    title = f'mmssm on {machine(content)}, {content["seconds"]:.0f} s'
    if content['device'] == 'cpu':
        title += ' (a CPU: small sizes, to try the report)'
    return [title, *rows, *notes[:6]]


def _results(steps: list[dict], *names: str) -> list[dict]:
    """Results of the steps of these names, as far as there are any."""
    return [s['result'] for s in steps if s['name'] in names and s['result']]


def _checked(steps: list[dict]) -> list[str]:
    """The largest errors, by dtype."""
    lines = []
    for result in _results(steps, 'check'):
        worst = {}
        for case in result['accuracy']:
            errors = [case['forward'], case['backward']]
            if None not in errors:
                before = worst.get(case['dtype'], 0)
                worst[case['dtype']] = max(before, *errors)
        found = ', '.join(f'{k} {exponent(v)}' for k, v in worst.items())
        lines.append(
            f'check: {len(result["accuracy"])} cases, largest errors {found}'
        )
        lines += [f'  {line[:150]}' for line in result['wrong'][:5]]
    return lines


def _tested(steps: list[dict]) -> list[str]:
    lines = []
    for step in steps:
        result = step['result']
        if step['kind'] != 'tests' or not result:
            continue
        counts = ', '.join(
            f'{result[k]} {k}' for k in ('passed', 'failed', 'skipped')
        )
        lines.append(f'{step["name"]}: {counts}')
        lines += [f'  {f["name"][:120]}' for f in result['failures'][:6]]
    return lines


def _golden(steps: list[dict]) -> list[str]:
    lines = []
    for result in _results(steps, 'golden'):
        cases = [c for c in result['cases'] if 'float32' in c]
        over = [c for c in cases if not c['float32'] <= c['limit']]
        if cases:
            worst = max(cases, key=lambda c: c['float32'])
            lines.append(
                f'golden: {len(cases)} cases, {len(over)} beyond the limit; '
                f'largest error {exponent(worst["float32"])} '
                f'({worst["name"]})'
            )
        narrow = [c for c in cases if 'bfloat16' in c]
        if narrow:
            far = max(narrow, key=lambda c: c['bfloat16'])
            lines[-1] += (
                f', in bfloat16 {exponent(far["bfloat16"])} ({far["name"]})'
            )
        lines += [
            f'  {c["name"]}: {c.get("note") or exponent(c["float32"])}'
            for c in result['cases']
            if c in over or 'note' in c
        ][:4]
    return lines


def _sanitized(steps: list[dict]) -> list[str]:
    found = [s for s in steps if s['kind'] == 'sanitizer']
    verdicts = [
        f'{s["name"]} '
        + (
            f'{s["result"]["errors"]} errors in {s["result"]["calls"]} calls'
            if s['result']
            else s['note']
        )
        for s in found
    ]
    return ['; '.join(verdicts)] if found else []


def _scans(steps: list[dict]) -> list[str]:
    """A line for each measurement of the routed scan."""
    lines = []
    for result in _results(steps, 'ops-scan', 'ops-more'):
        for report in result['reports']:
            known = report['settings']
            lines.append(
                f'  B{known["batch"]} N{known["states"]} '
                f'{_in_words(known)}: {_cells(report, "gather, scan (ours)")}'
            )
    if lines:
        lines.insert(
            0,
            'routed scan, VMamba-T stages: ms (times the byte floor, times as '
            "quick as gather-scan-merge; 'g': replayed from a CUDA graph)",
        )
    return lines


def _other_ops(steps: list[dict]) -> list[str]:
    lines = []
    for result in _results(steps, 'ops-others'):
        narrow = {
            report['settings']['op']
            for report in result['reports']
            if report['settings']['dtype'] == 'bfloat16'
        }
        for report in result['reports']:
            known = report['settings']
            if known['op'] in narrow and known['dtype'] == 'float32':
                continue
            beside = {'tree': 'chain', 'fusion': ''}[known['op']]
            lines.append(
                f'  {known["op"]} B{known["batch"]} {_in_words(known)}: '
                f'{_cells(report, beside)}'
            )
    if lines:
        lines.insert(
            0,
            'other ops, stage by stage, likewise; tree: beside a plain scan '
            'one way; fusion: beside the quickest convolution',
        )
    return lines


def _in_words(known: dict) -> str:
    return f'{known["dtype"]} {"f+b" if known["backward"] else "fwd"}'


def _cells(report: dict, beside: str) -> str:
    """Of each case: ms, times the floor, and how much quicker it is."""
    cells = []
    for case in report['cases']:
        cell = _cell(case, beside, graphs=True) or _cell(case, beside)
        cells.append(cell or case['results'][0]['note'][:40])
    return ' | '.join(cells)


def _cell(case: dict, beside: str, graphs: bool = False) -> str:
    times = {
        r['name']: list(r['median_s'].values())[-1]
        for r in case['results']
        if r['median_s'] and not r['note']
        if r['name'].endswith('CUDA graph') == graphs
    }
    ours = next((t for n, t in times.items() if n.startswith('mmssm')), None)
    if ours is None:
        return ''
    facts = case['facts']
    floor = ours * facts['bandwidth'] / facts['floor_bytes']
    others = [
        seconds
        for name, seconds in times.items()
        if name.startswith(beside) and not name.startswith('mmssm')
    ]
    quicker = f', {min(others) / ours:.1f}x' if others else ''
    mark = 'g' if graphs else ''
    return f'{ours * 1e3:.3g}{mark} ({floor:.1f}{quicker})'


def _models(steps: list[dict]) -> list[str]:
    """A line for each model, a column for each measurement."""
    columns, speeds = [], {}
    for result in _results(steps, 'models-small', 'models-large'):
        for report in result['reports']:
            known = report['settings']
            dtype = 'bfloat16 autocast' if known['amp'] else 'float32'
            for case in report['cases']:
                column = (
                    f'{case["facts"]["size"]} px B{known["batch"]} '
                    f'{"train" if known["train"] else "infer"}'
                )
                columns.append(column)
                for r in case['results']:
                    speeds.setdefault(r['name'], {})[column] = _speed(case, r)
    if not columns:
        return []
    widths = [max(len(column), 18) for column in columns]
    lines = [
        f'models, {dtype}, images/s (peak GiB)'.ljust(48)
        + ' '.join(c.rjust(w) for c, w in zip(columns, widths))
    ]
    for name, found in speeds.items():
        cells = (
            found.get(c, '-')[:w].rjust(w) for c, w in zip(columns, widths)
        )
        lines.append(f'  {name}'.ljust(48) + ' '.join(cells))
    return lines


def _speed(case: dict, result: dict) -> str:
    if result['note'] or not result['median_s']:
        return result['note'] or '-'
    seconds = list(result['median_s'].values())[-1]
    speed = case['facts']['batch'] / seconds
    return f'{speed:.4g} ({result["peak_bytes"] / 2**30:.1f})'


def _kernels(steps: list[dict]) -> list[str]:
    names = ('time', 'DRAM %', 'L2 %', 'occupancy %', 'registers', 'issue %')
    lines = [
        f'  {k["case"]}, {k["kernel"][:40]}: '
        + ', '.join(
            f'{metric(n, k.get(n))} {"us" if n == "time" else n}'
            for n in names
        )
        + f'; {stalls(k, 2)}'
        for result in _results(steps, 'kernels')
        for k in result['kernels']
    ]
    return ['kernels, by ncu:', *lines] if lines else []
