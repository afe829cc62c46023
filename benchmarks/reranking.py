"""Measure what re-ranking that needs no training costs, on random galleries.

    python benchmarks/reranking.py [--sizes 800 20000] [--queries 256] [--json PATH]

Seconds are those of the CPU, so that other work on the machine does not count; memory
is the peak of the resident set of a fresh process less what it held before, on Linux.
What it gains is measured by ``research/reranking_gains.py``.
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

from gckd_mm.evaluation import top_matches
from gckd_mm.evaluation.gallery_reranking import (
    build_reranker,
    rerank_candidates,
    rerank_with_gallery,
)

sys.path.insert(0, str(Path(__file__).parent))
from evaluation import _status_bytes as status_bytes
from evaluation import make_world
from report import add_json_option, write_report

Row = dict[str, Any]
TOP = 128
CANDIDATES = 200
DIM = 128


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


def cost_lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table of the costs."""
    lines = ['| method | images | gallery, once, s | ms a query | peak MB |']
    lines.append('|---' * 5 + '|')
    for row in rows:
        once = row['gallery_seconds']
        lines.append(
            line_of(
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


def line_of(columns: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f'| {" | ".join(columns)} |'


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[800, 20_000])
    parser.add_argument('--queries', type=int, default=256)
    parser.add_argument('--repeats', type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    costs = [
        costs_of(variant, size, options.queries, options.repeats)
        for size in options.sizes
        for variant in VARIANTS
    ]
    print('\n'.join(cost_lines(costs)))
    if options.json is not None:
        write_report(options.json, {'costs': costs})
    return 0


if __name__ == '__main__':
    sys.exit(main())
