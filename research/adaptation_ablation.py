"""Take GCKD apart: one part or one number of it changed, on a development world.

    python research/adaptation_ablation.py [--methods gckd without_graph …] [--jobs 2]

The rows are those of ``adaptation.py``, in ``adaptation_development.json``; the ones
that are there are kept. The table, of all methods that have rows, is written into
``docs/method.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from adaptation import (
    METHODS,
    RESULTS,
    add_place_options,
    rows_of,
    run_missing,
)
from adaptation_report import (
    Row,
    base_of,
    gains_of,
    line_of,
    mean_and_lowest,
    write_into_document,
)
from adaptation_run import ROOT, Run

DIRECTIONS = 'street2mall', 'mall2street'
WORLD = 0
#: what is changed, by the method that changes it, in the order of the table
PARTS = {
    'source_only': 'the source alone',
    'continued': 'the source alone, for as many steps',
    'gmp': 'GMP alone, without soft labels: the pull to neighbours',
    'gmp_learned': 'learned GMP alone: two layers, trained by the source',
    'cmkd': 'CMKD alone',
    'gckd': '**GCKD**',
    'without_graph': 'no graph: soft labels from the embeddings as they are',
    'without_smoothing': 'no smoothing of the embeddings over the graph',
    'without_label_walk': 'no label propagation',
    'without_cross_domain': 'no edges to the source',
    'with_cross_modal': 'edges to the other modality, too',
    'with_learned_graph': 'two learned layers (`SAGEConv`)',
    'without_assignment': 'no balanced assignment',
    'without_consistency': 'no term within a modality',
    'without_momentum': 'teacher momentum 0: the student of the step before',
    'momentum_0.99': 'teacher momentum 0.99 instead of 0.97',
    'temperature_0.04': "temperature of the teacher's labels 0.04 instead of 0.02",
    'distill_weight_1': "the distillation's weight 1 instead of 8",
    'memory_1200': 'memories of 1,200 instead of all (2,400 images, 4,800 captions)',
    'with_matching': 'the matching head trained, too (not used for the ranking)',
    'source_only_scratch': 'the source alone, without the pretrained start',
    'gckd_scratch': 'GCKD without the pretrained start',
}


def table(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table: Rank-1, the gain, and what the change costs.

    A gain is over the source alone, with or without the pretrained start. All are means
    over the runs; the lowest of them is in brackets.

    Args:
        rows: Of the same runs for all methods that are to be compared.
    """
    directions = list(dict.fromkeys((row['source'], row['target']) for row in rows))
    header = ['', *map(' → '.join, directions), 'over source-only', 'over GCKD']
    lines = [line_of(header), '|---' * len(header) + '|']
    for method, part in PARTS.items():
        own = [row for row in rows if row['method'] == method]
        if not own:
            continue
        scores = [
            [row['R1'] for row in own if (row['source'], row['target']) == direction]
            for direction in directions
        ]
        columns = [f'{statistics.mean(some):.1f}' if some else '–' for some in scores]
        for base in (base_of(method), 'gckd'):
            gains = gains_of(rows, method, base) if base != method else []
            columns.append(mean_and_lowest(gains))
        lines.append(line_of([part, *columns]))
    return lines


def rows_shown(rows: Sequence[Row]) -> list[Row]:
    """Return those of the ablation's runs."""
    return [
        row
        for row in rows
        if f'{row["source"]}2{row["target"]}' in DIRECTIONS and row['world'] == WORLD
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print the table; return 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--methods', nargs='+', default=list(PARTS), choices=PARTS)
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder of rows')
    place_of = add_place_options(parser)
    options = parser.parse_args(arguments)
    place = place_of(options)
    runs = [
        Run(name, METHODS[name], direction, WORLD, place)
        for direction in DIRECTIONS
        for name in options.methods
    ]
    rows = rows_of([WORLD], options.results)
    failed = run_missing(runs, rows, options.jobs)
    lines = table(rows_shown(rows.read()))
    print('\n'.join(['', *lines]))
    if options.results.resolve() == RESULTS:
        write_into_document(ROOT / 'docs/method.md', 'adaptation_ablation', lines)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
