"""Runs steps: each for a limited time, none in another's way."""

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from . import reading
from .steps import RESULT, ROOT, Step

LAST_WORDS = 10  # seconds from the interrupt, which lets it tell, to the kill
LEAST = 5  # seconds that are worth starting a step for
THREADS = 4
CORES = 3  # that a step beside others may take


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        name (str): The step's.
        what (str): Likewise.
        kind (str): Likewise.
        state (str): 'passed', 'failed', 'timed out' or 'skipped'.
        seconds (float): How long it took.
        limit (float): How long it might have taken.
        command (str): What repeats it, in the repository.
        note (str): Why it did not pass; empty if it did.
        result (dict | None): What it told, by its kind; None if nothing.
    """

    name: str
    what: str
    kind: str
    state: str
    seconds: float
    limit: float
    command: str
    note: str = ''
    result: dict | None = None


class Runner:
    """Runs steps within a budget.

    Args:
        budget (float): Seconds from now on; steps beyond them are skipped.
    """

    def __init__(self, budget: float) -> None:
        self._end = time.monotonic() + budget
        self._budget = budget
        self._stopped = False
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()

    def run(self, steps: Sequence[Step]) -> Iterator[tuple[Outcome, str]]:
        """Run steps in their order, neighbors that may so together.

        Yields:
            tuple[Outcome, str]: Of each step as it ends, and its log.
        """
        most = max(1, (os.cpu_count() or 1) // CORES)
        for together, group in groupby(steps, lambda step: step.together):
            with ThreadPoolExecutor(most if together else 1) as pool:
                for done in as_completed(
                    [pool.submit(self._run, step) for step in group]
                ):
                    yield done.result()

    def stop(self) -> None:
        """End what runs, and skip what is still to come."""
        self._stopped = True
        for process in list(self._running):
            _signal(process, signal.SIGKILL)

    def _run(self, step: Step) -> tuple[Outcome, str]:
        left = self._end - time.monotonic()
        limit = min(step.limit, left)
        note = step.absent
        if not note and self._stopped:
            note = 'the report was stopped'
        elif not note and left < LEAST:
            note = f'no time left of {self._budget:.0f} s'
        if note:
            return _outcome(step, 'skipped', 0, limit, note, None), ''
        with tempfile.TemporaryDirectory() as folder:
            file, log = Path(folder, 'result'), Path(folder, 'log')
            start = time.monotonic()
            status = self._wait(step, limit, file, log)
            seconds = time.monotonic() - start
            text = log.read_text(errors='replace')
            told = reading.read(step.kind, file, text)
        state, note = _state(status, told, self._stopped, limit, text)
        return _outcome(step, state, seconds, limit, note, told.result), text

    def _wait(
        self, step: Step, limit: float, file: Path, log: Path
    ) -> int | None:
        """The exit status; None if time ran out."""
        command = [part.replace(RESULT, str(file)) for part in step.command]
        # Threads that wait for a core which is taken make all others wait.
        threads = str(max(1, min(THREADS, (os.cpu_count() or 1) // 2)))
        variables = {
            'OMP_NUM_THREADS': threads,
            **os.environ,
            'PYTHONUNBUFFERED': '1',
            **step.variables,
        }
        with log.open('wb') as out:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    # A group of its own, so that all of it can be ended.
                    start_new_session=True,
                    # A report that runs in the background ignores interrupts;
                    # a step that takes too long must not.
                    preexec_fn=_take_interrupts,
                )
            except OSError as error:
                out.write(f'{error}\n'.encode())
                return 127
            with self._lock:
                self._running.add(process)
            if self._stopped:  # between the question and the start
                _signal(process, signal.SIGKILL)
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGINT)
                try:
                    process.wait(LAST_WORDS)
                except subprocess.TimeoutExpired:
                    pass
                return None
            finally:
                _signal(process, signal.SIGKILL)  # and what it left running
                process.wait()
                with self._lock:
                    self._running.discard(process)


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _signal(process: subprocess.Popen, number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def _state(
    status: int | None,
    told: reading.Told,
    stopped: bool,
    limit: float,
    log: str,
) -> tuple[str, str]:
    """A step's state and note."""
    if told.not_possible:
        return 'skipped', told.not_possible
    if stopped and status != 0:
        return 'failed', 'stopped'
    if status is None:
        return 'timed out', f'ended after {limit:.0f} s'
    if told.problem:
        return 'failed', told.problem
    if status:
        last = [line for line in log.splitlines() if line.strip()][-1:]
        return 'failed', f'exit status {status}: {"".join(last)[-200:]}'
    return 'passed', ''


def _shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(
        os.path.basename(part) if os.path.isabs(part) else part
        for part in (p.replace(RESULT, 'result.json') for p in command)
    )


def _outcome(
    step: Step,
    state: str,
    seconds: float,
    limit: float,
    note: str,
    result: dict | None,
) -> Outcome:
    return Outcome(
        step.name,
        step.what,
        step.kind,
        state,
        round(seconds, 1),
        round(limit, 1),
        _shown(step.command),
        note,
        result,
    )
