"""The report's files, up to date after every step."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from .page import page
from .picture import draw
from .running import Outcome
from .summary import summary

# Of a step's log: its beginning and its end, in characters.
LOG_BEGIN, LOG_END = 50_000, 500_000


class Report:
    """Collects outcomes and writes them.

    Args:
        folder (Path): Gets report.md, report.json, logs.txt and times.png.
        device (str): 'cpu' or 'cuda'.
        budget (int): Seconds that the steps had.
    """

    def __init__(self, folder: Path, device: str, budget: int) -> None:
        self._folder = folder
        self._start = time.monotonic()
        self._logs = []
        self._content = dict(
            device=device,
            begun=time.strftime('%Y-%m-%d %H:%M:%S'),
            budget=budget,
            seconds=0.0,
            steps=[],
        )
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def failed(self) -> bool:
        """Whether a step did not pass."""
        states = [step['state'] for step in self._content['steps']]
        return 'failed' in states or 'timed out' in states

    def add(self, outcome: Outcome, log: str) -> None:
        """Keep a step's outcome and log, and write all files but pictures."""
        self._content['steps'].append(asdict(outcome))
        self._content['seconds'] = round(time.monotonic() - self._start, 1)
        head = f'{outcome.name}: {outcome.state}, {outcome.seconds} s'
        rule = '=' * 79
        self._logs.append(
            f'{rule}\n{head}\n{outcome.command}\n{rule}\n{_shorten(log)}\n'
        )
        self._write('report.json', json.dumps(self._content, indent=1))
        self._write('report.md', page(self._content))
        self._write('logs.txt', '\n'.join(self._logs))

    def draw(self) -> None:
        """Write the picture, where there are times and matplotlib."""
        draw(self._content, self._folder / 'times.png')

    def summary(self) -> list[str]:
        """The lines that a person reads first."""
        return summary(self._content)

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        partial = self._folder / f'.{name}'
        partial.write_text(text)
        os.replace(partial, self._folder / name)


def _shorten(log: str) -> str:
    left_out = len(log) - LOG_BEGIN - LOG_END
    if left_out <= 0:
        return log
    return (
        f'{log[:LOG_BEGIN]}\n... {left_out} characters left out ...\n'
        f'{log[-LOG_END:]}'
    )
