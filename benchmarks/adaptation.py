"""Measure what the adaptation gains over source-only training, and over baselines.

    python benchmarks/adaptation.py --worlds 10 11 12
    python benchmarks/adaptation.py [--methods cmkd gmp gckd …] [--worlds 0 1 2]
        [--directions street2mall …] [--jobs 2]

The protocol, which was written down before the reported worlds were drawn:

- Everything is chosen on the worlds 0 to 2 (rows in ``adaptation_development.json``).
  The worlds 10 to 12 are drawn for the reported table alone, and each of its cells is
  run once (rows in ``adaptation.json``).
- All methods of a world and a source branch off the weights of one source stage, which
  is the source-only model itself, and take as many further optimiser steps, on the same
  source batches. ``continued`` takes these on the source alone; ``oracle`` has the
  target's labels from the first step of the source stage on, and as it takes both
  domains alike, one run is tested on both. The scores are those of the last iteration.
- A cell is (direction, world, seed); the seed of model and batches is 0 in the worlds
  0 to 2, and the world's own in the others.

Rows that are in the file already are kept, a run that is finished is not repeated: a
stopped benchmark goes on where it was. Table and picture show all rows of the file but
those of ablations, which have their own; the table is also written into ``RESULTS.md``,
its means on reported worlds into the README.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from gckd_mm.synthpedes.domain import SynthDomain
from gckd_mm.synthpedes.places import WORLD_NAMES
from gckd_mm.synthpedes.writer import write_domain

sys.path.insert(0, str(Path(__file__).parent))
import row_file
from adaptation_cell import ROOT, STAGES, Cell, Method, Place, completed
from adaptation_report import (
    document_beside,
    draw,
    summary,
    table,
    write_into_document,
)

RESULTS = ROOT / 'benchmarks/results'
DEVELOPMENT = (0, 1, 2)
DIRECTIONS = [f'{source}2{target}' for source, target in permutations(WORLD_NAMES, 2)]
#: methods that are compared with each other
COMPARED = {
    'source_only': STAGES['source'],
    # with the target's labels, for as many steps as source stage and adaptation take
    'oracle': Method(
        'baselines/oracle_street2mall',
        {'train_cfg.max_iters': 700, 'param_scheduler.1.end': 700},
        start=None,
        symmetric=True,
    ),
    'continued': Method('baselines/uda/continued_street2mall'),
    # for as long as GCKD takes, not for as many steps: 700 and 340 instead of 300; with
    # the warm-up and the ramp of 300
    'continued_as_long': Method(
        'baselines/uda/continued_street2mall',
        {'train_cfg.adapt_iters': 700, 'param_scheduler.2.warmup': 30 / 700},
    ),
    'reclip_as_long': Method(
        'baselines/uda/reclip_street2mall',
        {
            'train_cfg.adapt_iters': 340,
            'param_scheduler.2.warmup': 30 / 340,
            'model.adaptation.loss_weight.begin': 40 / 340,
            'model.adaptation.loss_weight.length': 35 / 340,
        },
    ),
    **{
        name: Method(f'baselines/uda/{name}_street2mall')
        for name in (
            'mmd',
            'coral',
            'dann',
            'mutual_neighbour',
            'spcl',
            'pouf',
            'reclip',
            'albef',
        )
    },
    **{name: Method(f'ablations/{name}_street2mall') for name in ('gmp', 'cmkd')},
    'gckd': Method('gckd_street2mall'),
    'images_only': Method(
        'gckd_street2mall', {'train_dataloader.dataset.target_captions': False}
    ),
}
#: what ``adaptation_ablation.py`` takes apart
ABLATIONS = {
    # the propagation as the paper trains it, by the source's loss, and nothing else
    'gmp_learned': Method(
        'ablations/with_learned_graph_street2mall',
        {'model.labels': None, 'model.distill': None, 'model.consistency': None},
    ),
    # one part of GCKD changed; the configs say which
    **{
        name: Method(f'ablations/{name}_street2mall')
        for name in (
            'without_assignment',
            'without_graph',
            'without_consistency',
            'without_momentum',
            'without_cross_domain',
            'with_cross_modal',
            'with_learned_graph',
            'with_matching',
        )
    },
    # one number of GCKD changed
    'without_smoothing': Method('gckd_street2mall', {'model.graph.neck.alpha': 0.0}),
    'without_label_walk': Method(
        'gckd_street2mall', {'model.labels.propagation': None}
    ),
    'distill_weight_1': Method(
        'gckd_street2mall', {'model.loss_weights.distill.end': 1.0}
    ),
    'momentum_0.99': Method('gckd_street2mall', {'model.teacher_momentum': 0.99}),
    'temperature_0.04': Method('gckd_street2mall', {'model.labels.temperature': 0.04}),
    'memory_1200': Method('gckd_street2mall', {'model.memory_size': 1200}),
    # without pretraining
    'source_only_scratch': STAGES['scratch'],
    'gckd_scratch': Method('gckd_street2mall', start='scratch'),
}
METHODS = COMPARED | ABLATIONS
#: those of the reported table, and what the summary calls them
MAIN = {
    'source_only': 'the source alone',
    'mmd': 'MMD',
    'pouf': 'POUF',
    'reclip': 'ReCLIP',
    'gmp': 'GMP alone (the pull to neighbours)',
    'cmkd': 'CMKD alone',
    'gckd': '**GCKD**',
    'oracle': "with the target's labels",
}


class Rows:
    """The rows of one file, in the order of the table.

    Args:
        path: A JSON list; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return row_file.read(self.path)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row to the file."""
        with row_file.changing(self.path) as rows:
            rows.append(row)
            rows.sort(key=_place_in_table)


def rows_of(worlds: Iterable[int], folder: Path) -> Rows:
    """Return the rows of the development worlds, or those of the reported ones."""
    kinds = {world in DEVELOPMENT for world in worlds}
    if len(kinds) > 1:
        raise SystemExit('worlds 0 to 2 and other worlds have different tables')
    name = 'adaptation_development' if kinds == {True} else 'adaptation'
    return Rows(folder / f'{name}.json')


def run(cells: Sequence[Cell], rows: Rows, jobs: int) -> int:
    """Run the cells whose rows are missing; return how many failed."""
    there = {_key(row) for row in rows.read()}
    missing = [cell for cell in cells if cell.key not in there]
    draw_worlds(missing)
    done = 0
    for _, row in completed(missing, jobs):
        rows.add(row)
        done += 1
    return len(missing) - done


def draw_worlds(cells: Iterable[Cell]) -> None:
    """Draw the domains of the cells that are not there yet."""
    for path, (name, world) in {
        cell.place.data / f'world{cell.world}' / name: (name, cell.world)
        for cell in cells
        for name in (cell.source, cell.target)
    }.items():
        write_domain(SynthDomain(name, world), path)


def _key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row['method'], row['source'], row['target'], row['world']


def _place_in_table(row: dict[str, Any]) -> tuple[int, int, int]:
    method, source, target, world = _key(row)
    known = [*METHODS, method]  # one that is no longer known comes last
    return DIRECTIONS.index(f'{source}2{target}'), known.index(method), world


def add_place_options(
    parser: argparse.ArgumentParser,
) -> Callable[[argparse.Namespace], Place]:
    """Add where the worlds and the runs lie, and how many run at a time.

    Returns:
        What reads the place out of the parsed options.
    """
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--threads', type=int, default=1, help='of each run')
    parser.add_argument('--data', type=Path, default=ROOT / 'work_dirs/worlds')
    parser.add_argument('--runs', type=Path, default=ROOT / 'work_dirs/adaptation')
    return lambda options: Place(
        options.data.resolve(), options.runs.resolve(), options.threads
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and draw; return 1 if a cell failed."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--methods', nargs='+', default=list(MAIN), choices=METHODS)
    parser.add_argument('--worlds', type=int, nargs='+', default=list(DEVELOPMENT))
    parser.add_argument(
        '--directions', nargs='+', default=DIRECTIONS, choices=DIRECTIONS
    )
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder of rows')
    place_of = add_place_options(parser)
    options = parser.parse_args(arguments)
    place = place_of(options)
    rows = rows_of(options.worlds, options.results)
    cells = [
        Cell(name, METHODS[name], direction, world, place)
        for world in options.worlds
        for direction in options.directions
        for name in options.methods
    ]
    failed = run(cells, rows, options.jobs)
    shown = rows.read()
    # those of development worlds are of busy machines
    reported = not set(options.worlds) <= set(DEVELOPMENT)
    lines = table(shown, list(COMPARED), seconds=reported)
    print('\n'.join(['', *lines]))
    write_into_document(document_beside(rows.path), rows.path.stem, lines)
    if rows.path == RESULTS / 'adaptation.json':
        write_into_document(ROOT / 'README.md', 'adaptation', summary(shown, MAIN))
    drawn = [name for name in COMPARED if not name.endswith('_as_long')]
    draw(shown, drawn, rows.path.with_suffix('.png'))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
