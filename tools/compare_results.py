"""Put results side by side: python tools/compare_results.py NAME=JSON ..."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table

from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError

METRICS = ('R1', 'R5', 'R10', 'mAP', 'mINP')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Compare results of tools/test.py.')
    parser.add_argument(
        'results',
        nargs='+',
        metavar='NAME=JSON',
        help='what `tools/test.py --out JSON` wrote, under a name of your choice',
    )
    return parser.parse_args(arguments)


def read_results(argument: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Read one argument: the name, and test set -> metrics.

    Raises:
        InputError: If the file is not what ``tools/test.py --out`` writes.
    """
    name, separator, path = argument.partition('=')
    if not separator:
        name, path = Path(argument).parent.name, argument
    try:
        metrics = json.loads(Path(path).read_text(encoding='utf-8'))['metrics']
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path}: not what tools/test.py --out writes ({error!r})'
        ) from error
    return name, metrics


def make_table(results: Sequence[tuple[str, dict[str, dict[str, Any]]]]) -> Table:
    """Return a row for each test set and each result, the sets of the first one."""
    table = Table(box=rich.box.SIMPLE_HEAVY, collapse_padding=True)
    table.add_column('test set', no_wrap=True)
    table.add_column('model', no_wrap=True)
    for name in METRICS:
        table.add_column(name, justify='right')
    for test_set in results[0][1]:
        for name, metrics in results:
            if test_set not in metrics:
                continue
            values = [metrics[test_set].get(metric) for metric in METRICS]
            cells = ['–' if value is None else f'{value:.2f}' for value in values]
            table.add_row(test_set, name, *cells)
        table.add_section()
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Read and print."""
    with user_errors():
        options = parse_arguments(arguments)
        results = [read_results(argument) for argument in options.results]
        Console().print(make_table(results))


if __name__ == '__main__':
    main()
