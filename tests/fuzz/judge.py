"""What becomes of a damaged input: accepted, refused, or one of four failures."""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gckd_mm.errors import InputError

ACCEPTED, REFUSED = 'accepted', 'refused'
TRACEBACK, HANG, SILENT, MEMORY = FAILURES = (
    'raw traceback',
    'hang',
    'silent acceptance',
    'memory',
)
OUTCOMES = (ACCEPTED, REFUSED, *FAILURES)
_MOST_SECONDS = 20
#: by which the process may grow within one case
_MOST_BYTES = 1_500_000_000
_MOST_ADDRESSES = 6 * 2**30
_SHOWN = 12
#: advice of torch that would run what a file holds
_BAD_ADVICE = ('weights_only=False', 'weights_only` to `False', 'Traceback (most')


class _Hang(BaseException):
    """A case that took too long."""


class _Silent(Exception):
    """A case in which damage was taken for good."""


def anything_goes(found: Any) -> str | None:
    """A check: nothing is wrong with what was accepted."""
    return None


def must_be_refused(found: Any) -> str | None:
    """A check: nothing should have been accepted."""
    return f'{type(found).__name__} was accepted'


@dataclass
class Judge:
    """Runs cases and counts how they end.

    Attributes:
        counts: Outcome -> number of cases.
        failures: A text for each case that failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def case(
        self,
        name: str,
        attempt: Callable[[], Any],
        check: Callable[[Any], str | None] = anything_goes,
    ) -> str:
        """Run one case.

        Args:
            name: That tells how to make the same input again.
            attempt: Uses the input. An :class:`InputError`, or a ``SystemExit`` with a
                message, is a refusal.
            check: Gets what ``attempt`` returns; says what is wrong with it, if
                anything is. Defaults to nothing.

        Returns:
            The outcome.
        """
        before = _peak_bytes()
        outcome, reason = _outcome(attempt, check)
        if _peak_bytes() - before > _MOST_BYTES:
            outcome, reason = MEMORY, f'{(_peak_bytes() - before) / 1e9:.1f} GB more'
        self.counts[outcome] += 1
        if outcome in FAILURES:
            self.failures.append(f'{outcome}: {name}\n    {reason}')
        return outcome

    def finish(self, record: Callable[[str, object], None]) -> None:
        """Hand the counts to the report, and fail if a case did."""
        record('fuzz', dict(self.counts))
        shown = '\n'.join(self.failures[:_SHOWN])
        assert not self.failures, f'{len(self.failures)} cases failed\n{shown}'


def _outcome(
    attempt: Callable[[], Any], check: Callable[[Any], str | None]
) -> tuple[str, str]:
    began = time.monotonic()
    try:
        with _limited(_MOST_SECONDS):
            problem = check(attempt())
            if problem is not None:
                raise _Silent(problem)
        outcome, reason = ACCEPTED, ''
    except _Silent as error:
        outcome, reason = SILENT, str(error)
    except _Hang:
        outcome, reason = HANG, f'over {_MOST_SECONDS} s'
    except (InputError, SystemExit) as error:
        outcome, reason = _refusal(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = TRACEBACK
        reason = f'{error!r:.300} ({where.filename}:{where.lineno})'
    if outcome in (ACCEPTED, REFUSED) and time.monotonic() - began > _MOST_SECONDS:
        outcome, reason = HANG, f'{time.monotonic() - began:.0f} s'
    return outcome, reason


def _refusal(error: BaseException) -> tuple[str, str]:
    message = str(error.code) if isinstance(error, SystemExit) else str(error)
    if any(advice in message for advice in _BAD_ADVICE):
        return TRACEBACK, f'bad advice: {message:.300}'
    if not message.strip() or message in ('0', '1', '2'):
        return TRACEBACK, f'no message: {error!r:.300}'
    return REFUSED, ''


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, stop)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(seconds)
    # so that a case runs out of memory, and the machine does not
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, memory[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def run_command(main: Callable[[list[str]], int], *arguments: str) -> int:
    """Call a command; one that ends with 2, its message printed, is a refusal."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        if not isinstance(stop.code, int):
            raise
        code = stop.code
    if code == 2:
        raise SystemExit('refused, with the message on standard error')
    return code


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
