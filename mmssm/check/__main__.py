"""Check that mmssm's ops are correct and quick on this machine.

Prints the environment, the error of every op against its PyTorch reference,
and its time beside those of the reference and of a copy of the data. Run it
after an install, and paste its output into a bug report. Exit code 1:
something is wrong.
"""

import argparse
import dataclasses
import json
import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmssm.analysis.benchmark.measure import prepare
from mmssm.apis.cli import run_tool
from mmssm.utils import atomic_write

from . import Accuracy, Speed, accuracy, environment, problems, speed


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m mmssm.check', description=__doc__
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda', 'all'],
        default='all',
        help='what to check (default: the CPU, and a GPU if there is one)',
    )
    parser.add_argument(
        '--json', metavar='FILE', help='write all that was found to this file'
    )
    parser.add_argument(
        '--quick', action='store_true', help='leave the times out'
    )
    return parser.parse_args()


def main() -> int:
    """Run the check; returns the exit code."""
    args = parse_args()
    devices = {
        'cpu': ['cpu'],
        'cuda': ['cuda'],
        'all': ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu'],
    }[args.device]
    out = Console(width=None if sys.stdout.isatty() else 100)
    facts = environment()
    print_facts(out, facts)
    errors, times, found = [], [], []
    for device in devices:
        faults = problems([device])
        found += [fault for fault in faults if fault not in found]
        if faults:
            continue
        prepare(device, None)
        checked = watched(accuracy(device), f'{device}: errors')
        errors += checked
        wrong = [describe(e) for e in checked if not e.passed]
        found += wrong
        if wrong or args.quick:
            continue
        try:
            times += watched(speed(device), f'{device}: times')
        except RuntimeError as error:  # also a GPU that is out of memory
            text = ' '.join(str(error).split())
            found.append(f'no times on {device}: {text}')
    print_errors(out, errors)
    print_times(out, times)
    print_verdict(out, found)
    if args.json:
        write_json(args.json, facts, errors, times, found)
    return 1 if found else 0


def watched(results: Iterable, name: str) -> list:
    """The results as a list, with a progress display on a terminal."""
    return list(
        track(
            results,
            name,
            total=None,
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
    )


def print_facts(out: Console, facts: dict[str, str]) -> None:
    """Print one line for each; long lines are not wrapped."""
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f'{name:<{width}}  {value}', highlight=False, soft_wrap=True)


def print_errors(out: Console, errors: Sequence[Accuracy]) -> None:
    """Print the worst case of each op, device and dtype."""
    if not errors:
        return
    table = narrow('Errors, relative to the largest value that is right')
    for name in ('op', 'device', 'dtype'):
        table.add_column(name, no_wrap=True)
    for name in ('forward', 'backward', 'limit'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict', no_wrap=True)
    groups = defaultdict(list)
    for error in errors:
        groups[error.op, error.device, error.dtype].append(error)
    for names, cases in groups.items():
        worst = max(cases, key=badness)
        table.add_row(
            *names,
            scientific(worst.forward),
            f'{worst.gradient} {scientific(worst.backward)}',
            scientific(worst.limit),
            'ok' if worst.passed else '[bold red]WRONG',
        )
    out.print(table)


def narrow(title: str) -> Table:
    """An empty table with narrow gaps, to fit in 80 columns."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)


def badness(error: Accuracy) -> float:
    """A number that is larger for a worse case; infinity for a failure."""
    if error.failure:
        return float('inf')
    return max(error.forward, error.backward)


def print_times(out: Console, times: Sequence[Speed]) -> None:
    """Print the times of the ops, of their references and of a copy."""
    if not times:
        return
    table = narrow('Milliseconds, forward, float32')
    table.add_column('op', no_wrap=True)
    table.add_column('device', no_wrap=True)
    table.add_column('size', no_wrap=True)
    for name in ('op here', 'reference', 'copy of the data'):
        table.add_column(name, justify='right')
    for time in times:
        table.add_row(
            time.op,
            time.device,
            time.size,
            f'{time.seconds * 1e3:.2f}',
            f'{time.reference_seconds * 1e3:.0f}',
            f'{time.floor_seconds * 1e3:.3f}',
        )
    out.print(table)


def print_verdict(out: Console, found: Sequence[str]) -> None:
    """Print what is wrong, one line each, or that all is right."""
    for problem in found:
        out.print(f'WRONG: {problem}', style='bold red', soft_wrap=True)
    if not found:
        out.print('All right.', style='bold green')


def describe(error: Accuracy) -> str:
    """Say in one line what is wrong with an op, and what to do."""
    where = f'{error.op} ({error.case}) on {error.device} in {error.dtype}'
    if error.failure:
        return f'{where} failed: {error.failure}'
    gradient = f', of the gradient of {error.gradient} {error.backward:.1e}'
    return (
        f'{where}: error of the result {error.forward:.1e}{gradient}, but at '
        f'most {error.limit:.1e} is right; do not use it, and report all of '
        'this page'
    )


def scientific(value: float | None) -> str:
    """Format a number as 1.2e-07, None as '-'."""
    return '-' if value is None else f'{value:.1e}'


def write_json(
    path: str,
    facts: dict[str, str],
    errors: Sequence[Accuracy],
    times: Sequence[Speed],
    found: Sequence[str],
) -> None:
    """Write all results; infinity, which JSON lacks, becomes null."""
    content = dict(
        command=shlex.join(['python', '-m', 'mmssm.check', *sys.argv[1:]]),
        environment=facts,
        accuracy=[
            {**finite(dataclasses.asdict(e)), 'passed': e.passed}
            for e in errors
        ],
        speed=list(map(dataclasses.asdict, times)),
        wrong=list(found),
    )
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode())


def finite(values: dict) -> dict:
    """The values, with None for numbers that are not finite."""
    return {
        name: None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }


if __name__ == '__main__':
    run_tool(lambda: sys.exit(main()))
