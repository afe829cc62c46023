"""Ask which quantities, logged without labels, tell whether an adaptation has helped.

    python benchmarks/adaptation_signals.py [--worlds 0 1 2] [--runs FOLDER]

For every finished run of ``adaptation.py``, its trials and its stresses: how far each
quantity of ``TargetStructureHook`` moved from the start of the adaptation to its end,
beside the gain in Rank-1 over the source-only model that it started from. Prints the
Spearman rank correlation over all runs, and writes the runs to
``adaptation_signals.json``, where they are kept when the work dirs are gone.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from gckd_mm.fileio import write_atomically

sys.path.insert(0, str(Path(__file__).parent))
from adaptation import DEVELOPMENT, RESULTS, ROOT
from adaptation_report import base_of, document_beside, write_into_document

#: the last part says what was done to the target, as in ``adaptation_stress.py``
_FOLDER = re.compile(r'(.+)_([a-z]+)2([a-z]+?)(_[a-z_]+)?')

Run = dict[str, Any]


def runs_below(folder: Path, worlds: Sequence[int]) -> list[Run]:
    """Return the finished runs of some worlds: what they are, their gain, the moves."""
    found = []
    for world in worlds:
        for path in sorted((folder / f'world{world}').glob('*/structure.json')):
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
                    'gain': round(after - before, 4),
                    'start': {k: round(v, 5) for k, v in start.items()},
                    'end': {k: round(v, 5) for k, v in end.items()},
                }
            )
    return found


def correlations(runs: Sequence[Run]) -> dict[str, tuple[float, float]]:
    """Return name -> rank correlation of a quantity's move with the gain, twice.

    First over all runs; then with the mean of its direction and world taken from each,
    so that only runs of one cell are compared with each other.

    Args:
        runs: At least three.
    """
    names = sorted(set.intersection(*(set(run['end']) for run in runs)) - {'iteration'})
    gains = [run['gain'] for run in runs]

    cells = [(run['source'], run['target'], run['world']) for run in runs]

    def correlation(values: list[float]) -> tuple[float, float]:
        within = spearmanr(_less_mean(values, cells), _less_mean(gains, cells))
        return float(spearmanr(values, gains).statistic), float(within.statistic)

    return {
        name: correlation([run['end'][name] - run['start'][name] for run in runs])
        for name in names
    }


def lines_of(found: dict[str, tuple[float, float]]) -> list[str]:
    """Return a Markdown table, the strongest move first."""
    lines = ['| the move of | over all runs | within a cell |', '|---|---|---|']
    for name, (over_all, within) in sorted(found.items(), key=_strength):
        lines.append(f'| {name} | {over_all:+.2f} | {within:+.2f} |')
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
    kept: list[Run] = []
    if options.results.exists():
        kept = json.loads(options.results.read_text())
    merged = {
        _key(run): run for run in [*kept, *runs_below(options.runs, options.worlds)]
    }
    write_atomically(options.results, json.dumps([*merged.values()], indent=1) + '\n')
    runs = [run for run in merged.values() if run['world'] in options.worlds]
    if len(runs) < 3:
        print(f'{len(runs)} runs are too few')
        return 1
    helped = sum(run['gain'] > 0 for run in runs)
    print(f'{len(runs)} runs, of which {helped} helped\n')
    lines = lines_of(correlations(runs))
    print('\n'.join(lines))
    name = options.results.stem
    if not set(options.worlds) <= set(DEVELOPMENT):
        name += '_reported'
    write_into_document(document_beside(options.results), name, lines)
    return 0


def _strength(item: tuple[str, tuple[float, float]]) -> float:
    """Sort the strongest first, and what does not vary last."""
    return -abs(item[1][0]) if item[1][0] == item[1][0] else 1.0


def _less_mean(values: Sequence[float], cells: Sequence[Any]) -> list[float]:
    groups: dict[Any, list[float]] = {}
    for value, cell in zip(values, cells, strict=True):
        groups.setdefault(cell, []).append(value)
    return [
        value - statistics.mean(groups[cell])
        for value, cell in zip(values, cells, strict=True)
    ]


def _key(run: Run) -> tuple[str, str, str, int]:
    return run['method'], run['source'], run['target'], run['world']


if __name__ == '__main__':
    sys.exit(main())
