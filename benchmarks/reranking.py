"""Measure re-ranking that needs no training: what it gains, and what it costs.

    python benchmarks/reranking.py [--worlds 0 1 2] [--methods source_only gckd]
        [--directions street2mall …] [--trials] [--json PATH]

- Gains: checkpoints of ``adaptation.py`` embed their test sets once, and the first 128
  images of each caption are ordered anew, by the whole gallery or by the best
  candidates alone, as a search does. What has no checkpoint is left out. A name such as
  ``gckd-trial6`` is a trial of the method before the dash.
- Costs: made-up galleries. Seconds are those of the CPU, so that other work on the
  machine does not count; memory is the peak of the resident set of a fresh process
  less what it held before, on Linux.
- ``--trials`` compares other settings than the defaults, which were chosen on world 0.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.evaluation import rank_metrics, top_matches
from gckd_mm.evaluation.gallery_reranking import (
    build_reranker,
    rerank_candidates,
    rerank_with_gallery,
)

sys.path.insert(0, str(Path(__file__).parent))
from adaptation import DEVELOPMENT, DIRECTIONS, METHODS
from adaptation_cell import ROOT, Cell, Place
from domain_gap import dump, run_tool
from evaluation import _status_bytes as status_bytes
from evaluation import make_world
from report import add_json_option, write_report

Row = dict[str, Any]
TOP = 128
CANDIDATES = 200
DIM = 128
GAINS = ('R1', 'mAP', 'mINP')


class Variant(NamedTuple):
    """A way to re-rank.

    Attributes:
        method: See :func:`gckd_mm.evaluation.gallery_reranking.build_reranker`.
        settings: Other than its defaults.
        candidates: How many images of each caption are looked at alone; 0 for the
            whole gallery.
    """

    method: str
    settings: Mapping[str, Any] = {}
    candidates: int = 0

    def __str__(self) -> str:
        settings = ', '.join(f'{k}={v}' for k, v in self.settings.items())
        of = f', of {self.candidates} candidates' if self.candidates else ''
        return self.method + (f' ({settings})' if settings else '') + of

    def order(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Return the new order of the first images of each query, shape (Q, K)."""
        if not self.candidates:
            reranker = build_reranker(self.method, **self.settings)
            return rerank_with_gallery(reranker, queries, gallery, TOP)
        found, _ = top_matches(queries, gallery, self.candidates)
        return np.stack(
            [
                rows[
                    rerank_candidates(x, gallery[rows], self.method, **self.settings)[0]
                ]
                for x, rows in zip(queries, found, strict=True)
            ]
        )


VARIANTS = [
    Variant('k_reciprocal'),
    Variant('propagation'),
    Variant('k_reciprocal', candidates=CANDIDATES),
    Variant('propagation', candidates=CANDIDATES),
]
TRIALS = [
    Variant('k_reciprocal'),
    *(
        Variant('k_reciprocal', settings)
        for settings in (
            {'k1': 20, 'k2': 6},  # the paper's, for pictures as queries
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


class EmbeddedCell(Cell):
    """A trained cell whose test set is embedded once.

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


def gains_of(cell: EmbeddedCell, variants: Sequence[Variant]) -> list[Row]:
    """Return a row for each variant, none if the cell has no checkpoint."""
    loaded = cell.load()
    if loaded is None:
        print(f'{cell}: no checkpoint in {cell.run_folder.name}', flush=True)
        return []
    queries, gallery, *_ = loaded
    plain = rank_metrics(*loaded)
    rows = []
    for variant in variants:
        order = variant.order(queries, gallery)
        found = rank_metrics(*loaded, shortlist=order)
        row = {
            'model': cell.name.partition('-')[0],
            'source': cell.source,
            'target': cell.target,
            'world': cell.world,
            'variant': str(variant),
            **{name: plain[name] for name in GAINS},
            **{f'{name}_gain': found[name] - plain[name] for name in GAINS},
        }
        rows.append(row)
        shown = ' / '.join(f'{row[f"{name}_gain"]:+.2f}' for name in GAINS)
        print(f'{cell}: {variant}: {shown}', flush=True)
    return rows


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Return the seconds of the CPU that one call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def costs_of(variant: Variant, images: int, queries: int, repeats: int) -> Row:
    """Time a variant; run it in a process of its own for the memory.

    Returns:
        Seconds for the gallery, once, and milliseconds a query, both the median; and
        the memory at the peak, in MB.
    """
    # The first calls load kernels.
    variant.order(*_embeddings(8, 300))
    feats, gallery = _embeddings(queries, images)
    order, similarity = top_matches(feats, gallery, variant.candidates or TOP)
    once, each = [], []
    for _ in range(repeats):
        if variant.candidates:
            found = [gallery[rows] for rows in order]
            each.append(
                cpu_seconds(
                    lambda found=found: [  # type: ignore[misc]
                        rerank_candidates(x, some, variant.method)
                        for x, some in zip(feats, found, strict=True)
                    ]
                )
            )
            continue
        start = time.process_time()
        scores = build_reranker(variant.method).over(torch.from_numpy(gallery))
        once.append(time.process_time() - start)
        shortlists = torch.from_numpy(order), torch.from_numpy(similarity)
        each.append(cpu_seconds(lambda scores=scores, s=shortlists: scores(*s)))  # type: ignore[misc]
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        extra = pool.apply(peak_extra_bytes, (variant, images, queries))
    return {
        'variant': str(variant),
        'images': images,
        'gallery_seconds': statistics.median(once) if once else None,
        'query_ms': statistics.median(each) / queries * 1000,
        'peak_extra_mb': extra / 1e6,
    }


def peak_extra_bytes(variant: Variant, images: int, queries: int) -> int:
    """Return the memory that re-ranking takes at its peak, beyond the embeddings."""
    torch.set_num_threads(1)
    variant.order(*_embeddings(8, 300))
    feats, gallery = _embeddings(queries, images)
    # '5' resets the peak resident set (proc_pid_clear_refs(5))
    Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    before = status_bytes('VmRSS')
    variant.order(feats, gallery)
    # the pages that the first calls held may have been given back
    return max(0, status_bytes('VmHWM') - before)


def _embeddings(queries: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    world = make_world(queries, images, DIM, max(1, images // 4), seed=0)
    return world.query.numpy(), world.gallery.numpy()


def gain_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table: means over the directions of each model and world."""
    variants = list(dict.fromkeys(row['variant'] for row in rows))
    header = ['model', 'world', 'cells', 'R1 / mAP / mINP', *variants]
    lines = [_line(header), '|---' * len(header) + '|']
    for model, world in dict.fromkeys((row['model'], row['world']) for row in rows):
        own = [row for row in rows if (row['model'], row['world']) == (model, world)]
        cells = [[row for row in own if row['variant'] == each] for each in variants]
        gains = (
            ' / '.join(f'{_mean(some, f"{name}_gain"):+.1f}' for name in GAINS)
            for some in cells
        )
        plain = ' / '.join(f'{_mean(cells[0], name):.1f}' for name in GAINS)
        lines.append(_line([model, str(world), str(len(cells[0])), plain, *gains]))
    lowest = (
        ' / '.join(
            f'{min(r[f"{name}_gain"] for r in rows if r["variant"] == each):+.1f}'
            for name in GAINS
        )
        for each in variants
    )
    lines.append(_line(['all', 'lowest', str(len(rows) // len(variants)), '', *lowest]))
    return lines


def trial_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table: the mean gains of each setting over all cells."""
    lines = ['| settings | R1 | mAP | mINP |', '|---|---|---|---|']
    for variant in dict.fromkeys(row['variant'] for row in rows):
        own = [row for row in rows if row['variant'] == variant]
        gains = (f'{_mean(own, f"{name}_gain"):+.2f}' for name in GAINS)
        lines.append(_line([variant, *gains]))
    return lines


def cost_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table of the costs."""
    lines = ['| method | images | gallery, once, s | ms a query | peak MB |']
    lines.append('|---' * 5 + '|')
    for row in rows:
        once = row['gallery_seconds']
        lines.append(
            _line(
                [
                    row['variant'],
                    f'{row["images"]:,}',
                    '–' if once is None else f'{once:.2f}',
                    f'{row["query_ms"]:.2f}',
                    f'{row["peak_extra_mb"]:.0f}',
                ]
            )
        )
    return lines


def _line(columns: Sequence[str]) -> str:
    return f'| {" | ".join(columns)} |'


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--methods', nargs='+', default=['source_only', 'gckd'])
    parser.add_argument(
        '--worlds', type=int, nargs='*', default=list(DEVELOPMENT), choices=DEVELOPMENT
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
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='*',
        default=[800, 20_000],
        help='of made-up galleries',
    )
    parser.add_argument('--queries', type=int, default=256, help='of made-up galleries')
    parser.add_argument('--repeats', type=int, default=3)
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
            EmbeddedCell(name, direction, world, place, options.embeddings.resolve()),
            TRIALS if options.trials else VARIANTS,
        )
    ]
    costs = [
        costs_of(variant, size, options.queries, options.repeats)
        for size in options.sizes
        for variant in VARIANTS
    ]
    if gains:
        lines = trial_lines(gains) if options.trials else gain_lines(gains)
        print('\n'.join(['', *lines]))
    if costs:
        print('\n'.join(['', *cost_lines(costs)]))
    if options.json is not None:
        write_report(options.json, {'gains': gains, 'costs': costs})
    return 0


if __name__ == '__main__':
    sys.exit(main())
