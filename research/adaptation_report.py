"""The tables and the figure of the adaptation's rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gckd_mm.fileio import write_atomically

Row = dict[str, Any]
METRICS = ('R1', 'R5', 'R10', 'mAP', 'mINP')
_COLOURS = {
    'source_only': '#9aa0a6',
    'continued': '#bdc1c6',
    'oracle': '#3c4043',
    # GCKD and its parts are red, and nothing else is
    'gmp': '#f6aea9',
    'cmkd': '#ee675c',
    'gckd': '#b31412',
}
_OTHER_COLOURS = (
    *('#4285f4', '#f9ab00', '#34a853', '#a142f4', '#12b5cb', '#8d6e63'),
    *('#9e9d24', '#5c6bc0', '#00897b', '#b39ddb', '#a1887f', '#0d652d'),
)


def table(
    rows: Sequence[Row], methods: Sequence[str], seconds: bool = True
) -> list[str]:
    """Return Markdown tables: Rank-1 by direction, GCKD's lead, means of everything.

    A number is mean ± sample standard deviation over worlds and seeds. A gain is the
    mean of the differences from another method of the same direction, world and seed,
    with the lowest of them: from :func:`base_of` the method, and from the source alone
    for as many steps (``continued``). The time is that of the adaptation's process, of
    ``source_only`` the source stage's.

    Args:
        rows: Of any methods, directions and worlds.
        methods: The order of the tables' rows.
        seconds: Whether they can be compared, and are to be shown. Defaults to True.
    """
    shown = [name for name in methods if any(row['method'] == name for row in rows)]
    lines = _scores(rows, shown)
    others = [name for name in shown if name not in ('gckd', 'oracle')]
    if 'gckd' in shown and others:
        lines += ['', *_lead(rows, others)]
    costs = {'train_seconds': 'train s'} if seconds else {}
    return [*lines, '', *_means(rows, shown, {**costs, 'peak_memory_mb': 'peak MB'})]


def _scores(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    directions = _directions(rows)
    names = map(' → '.join, directions)
    lines = _head('Rank-1', *names, 'runs', 'gain (lowest)', 'over continued')
    for name in methods:
        scores = [_values(rows, name, direction) for direction in directions]
        gains = [gains_of(rows, name, base) for base in (base_of(name), 'continued')]
        columns = [*map(_mean_and_spread, scores), str(sum(map(len, scores)))]
        lines.append(line_of([name, *columns, *map(mean_and_lowest, gains)]))
    return lines


def _lead(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    directions = _directions(rows)
    lines = _head('GCKD over', *map(' → '.join, directions), 'all')
    of_direction = [
        [row for row in rows if _direction(row) == direction]
        for direction in directions
    ]
    for name in methods:
        leads = [gains_of(some, 'gckd', name) for some in [*of_direction, rows]]
        lines.append(line_of([name, *map(mean_and_lowest, leads)]))
    return lines


def _means(
    rows: Sequence[Row], methods: Sequence[str], costs: Mapping[str, str]
) -> list[str]:
    lines = _head('method', *METRICS, *costs.values())
    for name in methods:
        own = [row for row in rows if row['method'] == name]
        columns = [f'{statistics.mean(row[key] for row in own):.1f}' for key in METRICS]
        columns += [f'{statistics.mean(row[key] for row in own):.0f}' for key in costs]
        lines.append(line_of([name, *columns]))
    return lines


def _head(*names: str) -> list[str]:
    return [line_of(names), '|---' * len(names) + '|']


def summary(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    """Return a short Markdown table: means, and the gain in Rank-1.

    They are over the runs that every method has, so that all can be compared.

    Args:
        rows: Of any methods, directions and worlds.
        names: Method -> what readers call it, in the order of the table; those without
            rows are left out.
    """
    of_method = {
        name: {_run_of(row) for row in rows if row['method'] == name} for name in names
    }
    shown = [name for name in names if of_method[name]]
    common = set.intersection(*(of_method[name] for name in shown))
    rows = [row for row in rows if _run_of(row) in common]
    gains = 'over source-only (lowest)'
    lines = _head(f'{len(common)} runs', 'Rank-1', gains, 'mAP', 'mINP')
    for name in shown:
        own = [row for row in rows if row['method'] == name]
        scores = [f'{statistics.mean(row[key] for row in own):.1f}' for key in METRICS]
        base = base_of(name)
        gain = mean_and_lowest(gains_of(rows, name, base) if name != base else [])
        lines.append(line_of([names[name], scores[0], gain, *scores[-2:]]))
    return lines


def document_beside(rows: Path) -> Path:
    """Return ``RESULTS.md``, beside the folder in which a file of rows lies."""
    return rows.resolve().parents[1] / 'RESULTS.md'


def write_into_document(document: Path, name: str, lines: Sequence[str]) -> None:
    """Write a table between ``<!-- <name> -->`` and ``<!-- end of <name> -->``.

    Without this place, or without the document, nothing is written.

    Args:
        document: In Markdown.
        name: Of the place.
        lines: What is to stand there.
    """
    if not document.exists():
        return
    begin, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
    before, found, rest = document.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if found and closed:
        text = '\n'.join(lines)
        write_atomically(document, f'{before}{begin}\n\n{text}\n\n{end}{after}')


def base_of(method: str) -> str:
    """Return the source-only model that a method starts from."""
    return 'source_only_scratch' if method.endswith('_scratch') else 'source_only'


def gains_of(rows: Sequence[Row], method: str, base: str) -> list[float]:
    """Return the gains in Rank-1 over another method, of the runs that both have."""
    scores = {_run_of(row): row['R1'] for row in rows if row['method'] == base}
    return [
        row['R1'] - scores[_run_of(row)]
        for row in rows
        if row['method'] == method and _run_of(row) in scores
    ]


def plot(rows: Sequence[Row], methods: Sequence[str], path: Path) -> None:
    """Plot Rank-1 of every method in every direction, with the runs as dots."""
    shown = [name for name in methods if any(row['method'] == name for row in rows)]
    directions = _directions(rows)
    if not directions:
        return
    figure = Figure(
        figsize=(max(9.0, 2 + 1.6 * len(directions)), 4.4), layout='constrained'
    )
    axes = figure.add_subplot()
    width = 0.8 / len(shown)
    for place, name in enumerate(shown):
        colour = colour_of(name, place)
        label: str | None = name
        for number, direction in enumerate(directions):
            values = _values(rows, name, direction)
            if not values:
                continue
            x = number + (place - (len(shown) - 1) / 2) * width
            spread = statistics.stdev(values) if len(values) > 1 else 0
            axes.bar(
                x,
                statistics.mean(values),
                0.92 * width,
                color=colour,
                yerr=spread or None,
                label=label,
                error_kw={'elinewidth': 1, 'ecolor': '#202124'},
            )
            label = None  # once is enough
            axes.plot([x] * len(values), values, '.', color='#202124', markersize=3)
    axes.set_xticks(range(len(directions)), [' → '.join(d) for d in directions])
    axes.set_ylabel('Rank-1 on the target, %')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        ncols=5,
        fontsize=9,
        frameon=False,
        loc='lower center',
        bbox_to_anchor=(0.5, 1.0),
    )
    figure.savefig(path, dpi=150)


def colour_of(method: str, place: int) -> str:
    """Return a method's colour in figures, where it is the ``place``-th of them."""
    return _COLOURS.get(method, _OTHER_COLOURS[place % len(_OTHER_COLOURS)])


def _run_of(row: Row) -> tuple[str, str, int, int]:
    return row['source'], row['target'], row['world'], row['seed']


def _direction(row: Row) -> tuple[str, str]:
    return row['source'], row['target']


def _directions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(map(_direction, rows)))


def _values(
    rows: Sequence[Row], method: str, direction: tuple[str, str]
) -> list[float]:
    return [
        row['R1']
        for row in rows
        if row['method'] == method and _direction(row) == direction
    ]


def line_of(columns: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f'| {" | ".join(columns)} |'


def mean_and_lowest(gains: Sequence[float]) -> str:
    """Return the mean of gains with the lowest of them, a dash if there are none."""
    if not gains:
        return '–'
    return f'{statistics.mean(gains):+.1f} ({min(gains):+.1f})'


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return '–'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
