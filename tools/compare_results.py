"""Put results side by side: python tools/compare_results.py [NAME=]PATH ... [options].

Results of one name are runs of one model from several seeds: mean ± standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.box
from rich.console import Console
from rich.table import Table

from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically

METRICS = ('R1', 'R5', 'R10', 'mAP', 'mINP')
#: what runs from several seeds have in common
_SHARED = ('config', 'weights', 'selection', 'iteration', 'rerank')


class Result(NamedTuple):
    """What one file of ``tools/test.py --out`` says."""

    name: str
    path: Path
    content: dict[str, Any]


class Row(NamedTuple):
    """One model on one test set.

    Attributes:
        test_set: Its name.
        model: Its name.
        seeds: Of its runs; None where a result does not tell.
        values: Metric -> in percent, one a run; None where it has not been measured.
    """

    test_set: str
    model: str
    seeds: list[int | None]
    values: dict[str, list[float] | None]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Compare results of tools/test.py.')
    parser.add_argument(
        'results',
        nargs='+',
        metavar='[NAME=]PATH',
        help='what `tools/test.py --out JSON` wrote, or a work dir with such files, '
        'under a name of your choice (default: the config). Runs of one name are '
        'averaged',
    )
    parser.add_argument(
        '--out',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help='also write the table: .md (Markdown), .csv or .json',
    )
    return parser.parse_args(arguments)


def read_results(argument: str) -> list[Result]:
    """Read one argument.

    Raises:
        InputError: If the file is not what ``tools/test.py --out`` writes, or if the
            folder has no such file.
    """
    name, separator, path = argument.partition('=')
    if not separator:
        name, path = '', argument
    if not Path(path).is_dir():
        return [_result(name, Path(path), _read(Path(path)))]
    found = []
    for file in sorted(Path(path).rglob('*.json')):
        try:
            found.append(_result(name, file, _read(file)))
        except InputError:
            continue  # logs lie there, too
    if not found:
        raise InputError(
            f'{path}: holds no results, write them with tools/test.py --out '
            f'{Path(path, "results.json")}'
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        if not all(isinstance(row, dict) for row in content['metrics'].values()):
            raise TypeError('metrics')
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: not what tools/test.py --out writes ({error!r})'
        ) from error
    return content


def _result(name: str, path: Path, content: dict[str, Any]) -> Result:
    config = content.get('config')
    default = Path(config).stem if config else path.resolve().parent.name
    if content.get('weights') == 'teacher':
        default = f'{default} (teacher)'
    return Result(name or default, path, content)


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return a row for each test set and each model, in the order of the results.

    Raises:
        InputError: If results of one name are not of one model from several seeds.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)
    for name, runs in groups.items():
        _check_runs(name, runs)
    test_sets = dict.fromkeys(
        test_set for result in results for test_set in result.content['metrics']
    )
    rows = []
    for test_set in test_sets:
        for name, runs in groups.items():
            tested = [run.content for run in runs if test_set in run.content['metrics']]
            if not tested:
                continue
            values: dict[str, list[float] | None] = {}
            for metric in METRICS:
                found = [run['metrics'][test_set].get(metric) for run in tested]
                values[metric] = None if None in found else found
            seeds = [run.get('seed') for run in tested]
            rows.append(Row(test_set, name, seeds, values))
    return rows


def _check_runs(name: str, runs: Sequence[Result]) -> None:
    """Refuse an average over anything but seeds."""
    first = runs[0]
    seeds: dict[Any, Result] = {}
    for run in runs:
        for field in _SHARED:
            here, there = (_shared(result.content, field) for result in (run, first))
            if here != there:
                raise InputError(
                    f'{run.path}: {field} is {here!r}, but {there!r} in {first.path}, '
                    f'and both are named {name!r}: give them names of their own '
                    f'(NAME=PATH)'
                )
        seed = run.content.get('seed')
        if len(runs) > 1 and (seed is None or seed in seeds):
            other = seeds.get(seed, first).path
            raise InputError(
                f'{run.path}: of seed {seed}, as {other}, and both are named {name!r}: '
                f'only runs from several seeds are averaged; give them names of their '
                f'own (NAME=PATH)'
            )
        seeds[seed] = run


def _shared(content: dict[str, Any], field: str) -> Any:
    value = content.get(field)
    if field == 'config':
        return value and Path(value).stem  # one file, by whatever path
    if field == 'iteration' and content.get('selection') != 'last':
        return None  # chosen on a validation set, it may differ
    return value


def cell(values: Sequence[float] | None) -> str:
    """Return ``mean ± standard deviation``; one run has no deviation."""
    if values is None:
        return '–'
    mean = f'{statistics.fmean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {statistics.stdev(values):.2f}'


def make_table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table for the terminal, a section for each test set."""
    table = Table(box=rich.box.SIMPLE_HEAVY, collapse_padding=True)
    table.add_column('test set', no_wrap=True)
    table.add_column('model', no_wrap=True)
    averaged = any(len(row.seeds) > 1 for row in rows)
    if averaged:
        table.add_column('runs', justify='right', no_wrap=True)
    for name in METRICS:
        table.add_column(name, justify='right', no_wrap=True)
    for i, row in enumerate(rows):
        if i and rows[i - 1].test_set != row.test_set:
            table.add_section()
        runs = [str(len(row.seeds))] if averaged else []
        cells = map(cell, row.values.values())
        table.add_row(row.test_set, row.model, *runs, *cells)
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        ['test set', 'model', 'runs', *METRICS],
        ['---', '---', *['---:'] * (1 + len(METRICS))],
    ]
    for row in rows:
        names = [name.replace('|', r'\|') for name in (row.test_set, row.model)]
        lines.append([*names, str(len(row.seeds)), *map(cell, row.values.values())])
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def to_csv(rows: Sequence[Row]) -> str:
    """Return the rows as comma-separated values, unrounded, empty where unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    columns = [f'{metric}_{part}' for metric in METRICS for part in ('mean', 'std')]
    writer.writerow(['test_set', 'model', 'runs', *columns])
    for row in rows:
        numbers = [number for v in row.values.values() for number in _moments(v)]
        writer.writerow([row.test_set, row.model, len(row.seeds), *numbers])
    return buffer.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Return the rows as JSON, with the value of every run."""
    content = []
    for row in rows:
        metrics = {}
        for metric, values in row.values.items():
            mean, deviation = _moments(values)
            metrics[metric] = {'values': values, 'mean': mean, 'std': deviation}
        content.append(
            {
                'test_set': row.test_set,
                'model': row.model,
                'seeds': row.seeds,
                'metrics': metrics,
            }
        )
    return json.dumps(content, indent=2) + '\n'


def _moments(values: Sequence[float] | None) -> tuple[float | None, float | None]:
    """Return mean and standard deviation (of a sample), None where there is none."""
    if values is None:
        return None, None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation


def print_whole(table: Table) -> None:
    """Print a table with every name and number in full, wider than the terminal."""
    console = Console()
    options = console.options.update(max_width=10_000)
    width = console.measure(table, options=options).maximum
    Console(width=max(width, console.width), soft_wrap=True).print(table)


FORMATS = {'.md': to_markdown, '.csv': to_csv, '.json': to_json}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Read, print and write."""
    options = parse_arguments(arguments)
    for path in options.out:
        if path.suffix not in FORMATS:
            raise InputError(
                f'--out {path}: must end in {", ".join(FORMATS)}, got {path.suffix!r}'
            )
    results = [r for argument in options.results for r in read_results(argument)]
    rows = summarise(results)
    print_whole(make_table(rows))
    for path in options.out:
        write_atomically(path, FORMATS[path.suffix](rows))


if __name__ == '__main__':
    main()
