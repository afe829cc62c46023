"""Ask which quantities, logged without labels, tell whether an adaptation has helped.

    python research/adaptation_signals.py [--worlds 0 1 2] [--runs FOLDER]

For every finished run of ``adaptation.py``, its trials and its stresses: how far each
quantity of ``TargetStructureHook`` moved from the start of the adaptation to its end,
beside the gain in Rank-1 over the source-only model that it started from. Prints the
Spearman rank correlation over all runs of development worlds, or of reported ones (and
within a direction, and within a method), and writes the runs to
``adaptation_signals.json``, where they are kept when the work dirs are gone.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptation import DEVELOPMENT, RESULTS, ROOT
from adaptation_report import base_of, document_beside, line_of, write_into_document
from adaptation_run import key_of, seed_of
from adaptation_stress import STRESSES
from scipy.stats import spearmanr

from gckd_mm.fileio import write_atomically

#: of a run, stressed or not; another suffix is of a run that was only looked at
_FOLDER = re.compile(rf'(.+)_([a-z]+)2([a-z]+?)(_(?:{"|".join(STRESSES)}))?')
#: of a world, and of another seed than its own
_WORLD = re.compile(r'world(\d+)(?:_seed(\d+))?')
#: the quantity to go by, chosen on the worlds 0 to 2
CHOSEN = 'cycle_rate'

Row = dict[str, Any]


def runs_below(folder: Path, worlds: Sequence[int]) -> list[Row]:
    """Return the finished runs of some worlds: what they are, their gain, the moves."""
    found = []
    for world in worlds:
        for path in sorted(folder.glob(f'world{world}*/*/structure.json')):
            at = _WORLD.fullmatch(path.parts[-3])
            if at is None or int(at[1]) != world:
                continue
            parts = _FOLDER.fullmatch(path.parent.name)
            looks = json.loads(path.read_text())
            if parts is None or len(looks) < 2:
                continue
            method, source, target, stress = parts.groups(default='')
            base = path.parents[1] / f'{base_of(method)}_{source}2{target}'
            scores = [
                json.loads((run / 'results.json').read_text())['metrics']
                for run in (base, path.parent)
                if (run / 'results.json').exists()
            ]
            if len(scores) < 2:
                continue
            before, after = (each[target]['R1'] for each in scores)
            start, end = looks[0], looks[-1]
            found.append(
                {
                    'method': method + stress,
                    'source': source,
                    'target': target,
                    'world': world,
                    'seed': seed_of(world) if at[2] is None else int(at[2]),
                    'gain': round(after - before, 4),
                    'start': {k: round(v, 5) for k, v in start.items()},
                    'end': {k: round(v, 5) for k, v in end.items()},
                }
            )
    return found


def without_repetitions(runs: Iterable[Row]) -> list[Row]:
    """Leave out runs that are others': a method's own config is one of its trials."""
    found: dict[tuple, Row] = {}
    for run in runs:
        ends = (*key_of(run)[1:], run['gain'])
        found.setdefault((*ends, *run['end'].values()), run)
    return [*found.values()]


def correlations(runs: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    """Return name -> rank correlations of a quantity's move with the gain.

    First over all runs; then with the mean of its direction, world and seed taken off,
    so that only methods are compared with each other; then with the mean of
    its method taken from each.

    Args:
        runs: At least three.
    """
    names = sorted(set.intersection(*(set(run['end']) for run in runs)) - {'iteration'})
    gains = [run['gain'] for run in runs]
    directions = [key_of(run)[1:] for run in runs]
    methods = [run['method'] for run in runs]

    def correlation(values: list[float]) -> tuple[float, ...]:
        pairs = [(values, gains)]
        for groups in (directions, methods):
            pairs.append((_less_mean(values, groups), _less_mean(gains, groups)))
        return tuple(_rank_correlation(*pair) for pair in pairs)

    return {name: correlation(_moves(runs, name)) for name in names}


def lines_of(found: dict[str, tuple[float, ...]]) -> list[str]:
    """Return a Markdown table, the strongest move first."""
    header = ['the move of', 'over all runs', 'within a direction', 'within a method']
    lines = [line_of(header), '|---' * len(header) + '|']
    for name, figures in sorted(found.items(), key=_strength):
        lines.append(line_of([name, *map(_signed, figures)]))
    return lines


def lines_by_method(runs: Sequence[Row]) -> list[str]:
    """Return a Markdown table: what :data:`CHOSEN` says within each method alone.

    Args:
        runs: Methods of fewer than six are left out.
    """
    header = ['method', 'runs', f'its move of {CHOSEN}', 'its gain', 'rank correlation']
    lines = [line_of(header), '|---' * len(header) + '|']
    for method in dict.fromkeys(run['method'] for run in runs):
        own = [run for run in runs if run['method'] == method]
        if len(own) < 6:
            continue
        moves, gains = _moves(own, CHOSEN), [run['gain'] for run in own]
        rank = _signed(_rank_correlation(moves, gains))
        means = f'{statistics.mean(moves):+.3f}', f'{statistics.mean(gains):+.1f}'
        lines.append(line_of([method, str(len(own)), *means, rank]))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, print and write; return 1 if there is too little to correlate."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--worlds', type=int, nargs='+', default=list(DEVELOPMENT))
    parser.add_argument('--runs', type=Path, default=ROOT / 'work_dirs/adaptation')
    parser.add_argument(
        '--results', type=Path, default=RESULTS / 'adaptation_signals.json'
    )
    options = parser.parse_args(arguments)
    developed = set(options.worlds) <= set(DEVELOPMENT)
    if not developed and set(options.worlds) & set(DEVELOPMENT):
        parser.error('worlds 0 to 2 and other worlds have different tables')
    kept: list[Row] = []
    if options.results.exists():
        kept = json.loads(options.results.read_text())
    merged = {
        key_of(run): run for run in [*kept, *runs_below(options.runs, options.worlds)]
    }
    write_atomically(options.results, json.dumps([*merged.values()], indent=1) + '\n')
    # the tables show all worlds of a kind, whichever have been looked at now
    runs = [
        run
        for run in without_repetitions(merged.values())
        if (run['world'] in DEVELOPMENT) == developed
    ]
    if len(runs) < 3:
        print(f'{len(runs)} runs are too few')
        return 1
    helped = sum(run['gain'] > 0 for run in runs)
    print(f'{len(runs)} runs, of which {helped} helped\n')
    lines = lines_of(correlations(runs))
    if len(of_methods := lines_by_method(runs)) > 2:
        lines += ['', *of_methods]
    print('\n'.join(lines))
    name = options.results.stem + ('' if developed else '_reported')
    write_into_document(document_beside(options.results), name, lines)
    return 0


def _strength(item: tuple[str, tuple[float, ...]]) -> float:
    """Sort the strongest first, and what does not vary last."""
    return 1.0 if math.isnan(item[1][0]) else -abs(item[1][0])


def _rank_correlation(first: list[float], second: list[float]) -> float:
    if min(len(set(first)), len(set(second))) < 2:
        return math.nan  # of what does not vary
    return float(spearmanr(first, second).statistic)


def _signed(figure: float) -> str:
    return '–' if math.isnan(figure) else f'{figure:+.2f}'


def _moves(runs: Sequence[Row], name: str) -> list[float]:
    return [run['end'][name] - run['start'][name] for run in runs]


def _less_mean(values: Sequence[float], names: Sequence[Any]) -> list[float]:
    groups: dict[Any, list[float]] = {}
    for value, name in zip(values, names, strict=True):
        groups.setdefault(name, []).append(value)
    return [
        value - statistics.mean(groups[name])
        for value, name in zip(values, names, strict=True)
    ]


if __name__ == '__main__':
    sys.exit(main())
