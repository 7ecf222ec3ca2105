"""Measurements as Markdown tables, JSON and pictures."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from mmssm.utils import atomic_write

from .measure import Case, Result

MIB = 2**20


@dataclass
class Report:
    """The results of one command. Added tables are printed.

    Attributes:
        title (str): What was measured, one line.
        machine (str): The machine, one line.
        remarks (list[str]): How to read the tables, one line each.
        cases (list[Case]): The measurements.
        tables (list[str]): The same as Markdown tables.
    """

    title: str
    machine: str
    remarks: list[str]
    cases: list[Case] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def add(self, table: str, case: Case | None = None) -> None:
        """Add a table and its case, and print the table."""
        if not self.tables:
            print(self.machine, self.title, *self.remarks, sep='\n')
        self.tables.append(table)
        self.cases += [case] if case else []
        print(f'\n{table}', flush=True)

    def as_dict(self, command: str) -> dict:
        """The report in plain types, with the seconds of every round.

        Args:
            command (str): The command that repeats the measurement.
        """
        return dict(
            command=command,
            title=self.title,
            machine=self.machine,
            remarks=self.remarks,
            cases=[_as_dict(case) for case in self.cases],
            tables=self.tables,
        )

    def write_json(self, path: str | Path, command: str) -> None:
        """Write the report of :meth:`as_dict` as JSON."""
        with atomic_write(path) as file:
            file.write(json.dumps(self.as_dict(command), indent=1).encode())

    def write_markdown(self, path: str | Path, command: str) -> None:
        """Append the tables to a page; a new page is titled with the machine.

        Args:
            path (str | Path): The page.
            command (str): The command that repeats the measurement.
        """
        path = Path(path)
        heading = f'# {self.machine.split(",")[0]}'
        page = path.read_text().rstrip() if path.exists() else heading
        remarks = '\n'.join(f'- {r}' for r in [self.machine, *self.remarks])
        parts = [page, f'## {self.title}', f'`{command}`', remarks]
        with atomic_write(path) as file:
            text = '\n\n'.join([*parts, *self.tables])
            file.write(f'{text}\n'.encode())


def _as_dict(case: Case) -> dict:
    results = [
        dict(
            name=result.name,
            median_s=result.medians,
            seconds=result.seconds,
            ratio=case.ratio(result),
            peak_bytes=result.peak,
            note=result.note,
        )
        for result in case.results
    ]
    return dict(name=case.name, facts=case.facts, results=results)


def op_table(case: Case) -> str:
    """Table of a case of an op's benchmark."""
    facts = case.facts
    floor, one_map = facts['floor_bytes'], facts['map_bytes']
    backward = any(len(result.medians) > 1 for result in case.results)
    head = ['implementation', 'ms', 'ratio', 'x floor', 'GB/s', 'peak MiB']
    head += ['maps']
    if backward:
        head += ['forward ms', 'x floor', 'backward / forward']
    rows = []
    for result in _measured(case):
        row = [
            result.median * 1e3,
            case.ratio(result),
            result.median * facts['bandwidth'] / floor,
            floor / result.median / 1e9,
            result.peak and result.peak / MIB,
            result.peak and result.peak / one_map,
        ]
        if backward:
            forward = result.medians['forward']
            row += [
                forward * 1e3,
                forward * facts['bandwidth'] / facts['forward_floor_bytes'],
                (result.median - forward) / forward,
            ]
        rows.append([result.name, *map(_number, row)])
    title = (
        f'{case.name} (a map: {_number(one_map / MIB)} MiB, floor: '
        f'{_number(floor / MIB)} MiB)'
    )
    return _table(title, head, rows, _notes(case))


def model_table(case: Case) -> str:
    """Table of a case of :func:`bench_model`."""
    head = ['backbone', 'params M', 'ms', 'img/s', 'ratio', 'peak MiB']
    rows = []
    for result in _measured(case):
        row = [
            case.facts['params'][result.name] / 1e6,
            result.median * 1e3,
            case.facts['batch'] / result.median,
            case.ratio(result),
            result.peak / MIB,
        ]
        rows.append([result.name, *map(_number, row)])
    return _table(case.name, head, rows, _notes(case))


def growth_table(cases: list[Case]) -> str:
    """Table of milliseconds at each image size, and their growth."""
    sizes = [case.facts['size'] for case in cases]
    rows = [['pixels', *_growth([size**2 for size in sizes], str)]]
    for number, result in enumerate(cases[0].results):
        times = [case.results[number].median for case in cases]
        rows.append([result.name, *_growth(times, lambda s: _number(s * 1e3))])
    head = ['ms', *[f'{size} px' for size in sizes]]
    return _table('Growth from size to size', head, rows, [])


def _growth(values: list, text) -> list[str]:
    """Format each value with its ratio to the one before."""
    cells = []
    for before, value in zip([None, *values], values):
        factor = f' ({value / before:.2f}x)' if before and value else ''
        cells.append(f'{text(value)}{factor}' if value else '-')
    return cells


def _measured(case: Case) -> list[Result]:
    return [result for result in case.results if not result.note]


def _notes(case: Case) -> list[str]:
    return [f'- {r.name}: {r.note}' for r in case.results if r.note]


def _number(value: float | None) -> str:
    """Format a number with three digits or more and no exponent."""
    if value is None:
        return '-'
    return f'{value:.{2 if value < 10 else 1 if value < 100 else 0}f}'


def _table(
    title: str, head: list[str], rows: list[list[str]], notes: list[str]
) -> str:
    """A Markdown table under a heading, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    rule = ['-' * (width - 1) + ':' for width in widths]
    rule[0] = f':{"-" * (widths[0] - 1)}'
    lines = []
    for cells in (head, rule, *rows):
        first, *others = zip(cells, widths)
        padded = [first[0].ljust(first[1])] + [c.rjust(w) for c, w in others]
        lines.append(f'| {" | ".join(padded)} |')
    parts = [f'### {title}', '\n'.join(lines), '\n'.join(notes)]
    return '\n\n'.join(filter(None, parts))
