"""Measure what re-ranking that needs no training gains, on trained checkpoints.

    python research/reranking_gains.py [--worlds 0 1 2] [--methods source_only gckd]
        [--directions street2mall …] [--trials] [--json PATH]

Checkpoints of ``adaptation.py`` embed their test sets once, and the first 128 images of
each caption are ordered anew, by the whole gallery or by the best candidates alone, as
a search does. What has no checkpoint is left out. A name such as ``gckd-trial6`` is a
trial of the method before the dash. ``--trials`` compares other settings than the
defaults, which were chosen on world 0. The costs are in ``benchmarks/reranking.py``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adaptation import DEVELOPMENT, DIRECTIONS, METHODS
from adaptation_report import line_of
from adaptation_run import KEY, ROOT, Place, Run
from domain_gap import dump, run_tool

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.evaluation import rank_metrics

sys.path.insert(0, str(ROOT / 'benchmarks'))
from report import add_json_option, write_report
from reranking import TOP, VARIANTS, Variant

Row = dict[str, Any]
GAINS = ('R1', 'mAP', 'mINP')
TRIALS = [
    Variant('k_reciprocal'),
    *(
        Variant('k_reciprocal', settings)
        for settings in (
            {'k1': 20, 'k2': 6},  # the paper's, for images as queries
            {'k1': 4, 'k2': 2},
            {'k2': 1},
            {'seeds': 3},
            {'seeds': 20},
            {'similarity_share': 0.0},
            {'similarity_share': 0.6},
        )
    ),
    Variant('propagation'),
    *(
        Variant('propagation', settings)
        for settings in (
            {'k': 3},
            {'k': 8},
            {'k': 20},
            {'alpha': 0.7},
            {'alpha': 0.97},
            {'seeds': 6},
            {'seeds': TOP, 'temperature': 0.2},
        )
    ),
]


class EmbeddedRun(Run):
    """A trained run whose test set is embedded once.

    Args:
        name: Of the method, or of a trial of it.
        direction: ``<source>2<target>``.
        world: Seed of the generator.
        place: Where data and runs lie.
        embeddings: Folder for what is embedded.
    """

    def __init__(
        self, name: str, direction: str, world: int, place: Place, embeddings: Path
    ) -> None:
        method = METHODS[name.partition('-')[0]]
        super().__init__(name, method, direction, world, place)
        self.embedded = embeddings / f'world{world}' / self.folder.name

    def load(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return features of captions and images, and their ids, as a metric does."""
        path = self.embedded / 'embeddings.npz'
        if not path.exists():
            weights = find_last_checkpoint(self.run_folder)
            if weights is None:
                return None
            config = dump(self._config(self.method), self.embedded)
            options = ('--dump', path, '--work-dir', self.embedded)
            run_tool('test', config, weights, *options)
        with np.load(path) as arrays:
            captions, images = (
                {
                    key: arrays[f'{self.target}/{part}/{key}']
                    for key in ('feats', 'pids')
                }
                for part in ('captions', 'images')
            )
        return captions['feats'], images['feats'], captions['pids'], images['pids']


def gains_of(run: EmbeddedRun, variants: Sequence[Variant]) -> list[Row]:
    """Return a row for each variant, none if the run has no checkpoint."""
    loaded = run.load()
    if loaded is None:
        print(f'{run}: no checkpoint in {run.run_folder.name}', flush=True)
        return []
    queries, gallery, *_ = loaded
    plain = rank_metrics(*loaded)
    rows = []
    for variant in variants:
        order = variant.order(queries, gallery)
        found = rank_metrics(*loaded, shortlist=order)
        row = {
            'model': run.name.partition('-')[0],
            **dict(zip(KEY[1:], run.key[1:], strict=True)),
            'variant': str(variant),
            **{name: plain[name] for name in GAINS},
            **{f'{name}_gain': found[name] - plain[name] for name in GAINS},
        }
        rows.append(row)
        shown = ' / '.join(f'{row[f"{name}_gain"]:+.2f}' for name in GAINS)
        print(f'{run}: {variant}: {shown}', flush=True)
    return rows


def gain_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table: means over the directions of each model and world."""
    variants = list(dict.fromkeys(row['variant'] for row in rows))
    header = ['model', 'world', 'runs', 'R1 / mAP / mINP', *variants]
    lines = [line_of(header), '|---' * len(header) + '|']
    for model, world in dict.fromkeys((row['model'], row['world']) for row in rows):
        own = [row for row in rows if (row['model'], row['world']) == (model, world)]
        by_variant = [
            [row for row in own if row['variant'] == each] for each in variants
        ]
        gains = (
            ' / '.join(f'{_mean(some, f"{name}_gain"):+.1f}' for name in GAINS)
            for some in by_variant
        )
        plain = ' / '.join(f'{_mean(by_variant[0], name):.1f}' for name in GAINS)
        lines.append(
            line_of([model, str(world), str(len(by_variant[0])), plain, *gains])
        )
    lowest = (
        ' / '.join(
            f'{min(r[f"{name}_gain"] for r in rows if r["variant"] == each):+.1f}'
            for name in GAINS
        )
        for each in variants
    )
    lines.append(
        line_of(['all', 'lowest', str(len(rows) // len(variants)), '', *lowest])
    )
    return lines


def trial_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table: the mean gains of each setting over all runs."""
    lines = ['| settings | R1 | mAP | mINP |', '|---|---|---|---|']
    for variant in dict.fromkeys(row['variant'] for row in rows):
        own = [row for row in rows if row['variant'] == variant]
        gains = (f'{_mean(own, f"{name}_gain"):+.2f}' for name in GAINS)
        lines.append(line_of([variant, *gains]))
    return lines


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--methods', nargs='+', default=['source_only', 'gckd'])
    parser.add_argument(
        '--worlds', type=int, nargs='+', default=list(DEVELOPMENT), choices=DEVELOPMENT
    )
    parser.add_argument(
        '--directions',
        nargs='+',
        default=['street2mall', 'mall2street', 'street2campus'],
        choices=DIRECTIONS,
    )
    parser.add_argument('--trials', action='store_true', help='compare other settings')
    parser.add_argument('--data', type=Path, default=ROOT / 'work_dirs/worlds')
    parser.add_argument('--runs', type=Path, default=ROOT / 'work_dirs/adaptation')
    parser.add_argument('--embeddings', type=Path, default=ROOT / 'work_dirs/reranking')
    add_json_option(parser)
    options = parser.parse_args(arguments)
    for name in options.methods:
        if name.partition('-')[0] not in METHODS:
            parser.error(f'--methods: {name} is not one of {", ".join(METHODS)}')
    torch.set_num_threads(1)
    place = Place(options.data.resolve(), options.runs.resolve(), threads=1)
    gains = [
        row
        for world in options.worlds
        for direction in options.directions
        for name in options.methods
        for row in gains_of(
            EmbeddedRun(name, direction, world, place, options.embeddings.resolve()),
            TRIALS if options.trials else VARIANTS,
        )
    ]
    if gains:
        lines = trial_lines(gains) if options.trials else gain_lines(gains)
        print('\n'.join(['', *lines]))
    if options.json is not None:
        write_report(options.json, {'gains': gains})
    return 0


if __name__ == '__main__':
    sys.exit(main())
