"""Run the steps, keep the report up to date, print the summary last."""

import argparse
import importlib.util
import signal
import sys
from pathlib import Path

from .report import Report
from .running import Runner
from .steps import ROOT, plan

BUDGET = 350  # seconds: six minutes, less what starting and writing take


def parse_args(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog='gpu_report.sh',
        description='Check and measure mmssm on a GPU: its ops and models '
        'against their references, their times, memory checks and profiles. '
        'Needs a built extension, mmssm/_ext.so, and no network.',
    )
    parser.add_argument(
        'out',
        type=Path,
        metavar='OUT',
        help='folder for report.md, report.json, logs.txt and times.png',
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda',
        help='cpu: the same steps with small sizes, to try the report '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--budget',
        type=int,
        default=BUDGET,
        metavar='SECONDS',
        help='steps beyond it are skipped (default: %(default)s)',
    )
    parser.add_argument(
        '--steps',
        nargs='+',
        default=[],
        metavar='NAME',
        help='only these steps (default: all)',
    )
    return parser.parse_args(arguments)


def problem() -> str:
    """What makes every step fail, one line; '' if nothing does."""
    if importlib.util.find_spec('torch') is None:
        return (
            f'{sys.executable} has no torch; activate the environment that '
            'has it, or name its Python: PYTHON=... gpu_report.sh'
        )
    if not (ROOT / 'mmssm' / '_ext.so').is_file():
        return (
            f'there is no {ROOT / "mmssm" / "_ext.so"}; build the extension, '
            'or copy it there: see benchmarks/README.md'
        )
    return ''


def main(arguments: list[str]) -> int:
    """Run it; the exit status: 1 if a step did not pass, 2 for bad input."""
    args = parse_args(arguments)
    try:
        steps = plan(args.device, args.steps)
        if args.budget < 1:
            raise ValueError(
                f'the budget must be at least one second, got {args.budget}'
            )
        if problem():
            raise ValueError(problem())
    except ValueError as error:
        print(f'gpu_report.sh: error: {error}', file=sys.stderr)
        return 2
    report = Report(args.out, args.device, args.budget)
    runner = Runner(args.budget)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    for outcome, log in runner.run(steps):
        report.add(outcome, log)
        note = f': {outcome.note}' if outcome.note else ''
        print(
            f'{outcome.name}: {outcome.state}, {outcome.seconds:.0f} s{note}',
            flush=True,
        )
        if outcome.name == 'environment' and outcome.state == 'failed':
            runner.stop()  # no GPU, or no extension for it: nothing to tell
    report.draw()
    print('\n' + '\n'.join(report.summary()), flush=True)
    return int(report.failed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
