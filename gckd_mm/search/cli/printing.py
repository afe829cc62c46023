"""Tables for people, plain lines for pipes."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import rich.box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_SECONDS_A_LINE = 10.0


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print rows: a table in a terminal, tabs between the cells in a pipe.

    What is printed may be anything: nothing in it is taken for markup, and line ends
    and control characters are written as escapes.
    """
    rows = [[_on_one_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            print('\t'.join(row))
        return
    table = Table(title=Text(_on_one_line(title)), box=rich.box.SIMPLE_HEAVY)
    for name in columns:
        table.add_column(name, justify='right' if name == 'score' else 'left')
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    console.print(table)
    if not rows:
        console.print('nothing was found')


def print_pairs(known: Mapping[str, Any]) -> None:
    """Print names and values: a table in a terminal, ``name<tab>value`` in a pipe."""
    rows = [[name, str(value)] for name, value in known.items()]
    print_table('', ['', ''], rows)


@contextmanager
def plain_warnings(plain: type[Warning]) -> Iterator[None]:
    """Print warnings of a category on a line each, without the place in the code."""
    before = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], *place: Any, **more: Any
    ) -> None:
        if issubclass(category, plain):
            print(f'warning: {message}', file=sys.stderr, flush=True)
        else:
            before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is: a bar in a terminal, a line now and then elsewhere.

    Yields:
        What to call with the number of things done, and in all.
    """
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        MofNCompleteColumn(),
        TextColumn('{task.fields[rate]}'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, rate='')
        began = time.perf_counter()

        def show(done: int, total: int) -> None:
            rate = done / (time.perf_counter() - began)
            progress.update(
                task, completed=done, total=total, rate=f'{rate:.0f} pictures/s'
            )

        yield show


def _lines(what: str) -> Callable[[int, int], None]:
    """Return what shows progress in a log file."""
    began = printed = time.perf_counter()

    def show(done: int, total: int) -> None:
        nonlocal printed
        now = time.perf_counter()
        if not done or (now - printed < _SECONDS_A_LINE and done < total):
            return
        printed = now
        rate = done / (now - began)
        left = (total - done) / rate
        print(
            f'{what}: {done} of {total}, {rate:.0f} pictures/s, {left:.0f} s left',
            file=sys.stderr,
            flush=True,
        )

    return show


def _on_one_line(text: str) -> str:
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)
