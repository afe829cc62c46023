"""Time exact evaluation against the bare similarity product, at ICFG-PEDES size.

Both are measured in turn in the same run, so that a busy machine slows both; the ratio
is the median over neighbouring measurements. Memory is read in a fresh process, on
Linux: the peak of the resident set during one ``rank_metrics`` call less the resident
set before it, when the embeddings are there.

Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from report import add_json_option, write_report

from gckd_mm.evaluation.ranking import rank_metrics

MAX_RATIO = 3.0
MAX_EXTRA_GB = 0.5
_PRODUCT_CHUNK = 512


class World(NamedTuple):
    """Embeddings ``(N, D)``, L2-normalised float32, and person ids ``(N,)``."""

    query: torch.Tensor
    gallery: torch.Tensor
    query_pids: np.ndarray
    gallery_pids: np.ndarray


def make_world(queries: int, gallery: int, dim: int, ids: int, seed: int) -> World:
    """Draw identity clusters with noise, persons in random order."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    centres = torch.randn(ids, dim, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, np.ndarray]:
        pids = rng.permutation(np.arange(count) % ids)
        feats = torch.randn(count, dim, generator=generator)
        # Rank-1 of 60 to 80 % at the default size: positives far down the list too
        feats = feats.mul_(2.8).add_(centres[torch.from_numpy(pids)])
        return torch.nn.functional.normalize(feats), pids

    query, query_pids = draw(queries)
    images, gallery_pids = draw(gallery)
    return World(query, images, query_pids, gallery_pids)


def product(world: World) -> None:
    """Compute every similarity once, in chunks, into one buffer: the floor."""
    buffer = torch.empty(min(_PRODUCT_CHUNK, len(world.query)), len(world.gallery))
    for chunk in world.query.split(_PRODUCT_CHUNK):
        torch.mm(chunk, world.gallery.T, out=buffer[: len(chunk)])


def seconds(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_extra_bytes(size: dict[str, int]) -> int:
    """Return the memory that one call takes at its peak, beyond the embeddings.

    Run it in a fresh process: freed memory that the process keeps would hide some.
    """
    # The libraries load their kernels and start their threads at the first call.
    rank_metrics(*make_world(**{**size, 'queries': 64, 'gallery': 64, 'ids': 8}))
    world = make_world(**size)
    # '5' resets the peak resident set (proc_pid_clear_refs(5))
    Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    before = _status_bytes('VmRSS')
    rank_metrics(*world)
    return _status_bytes('VmHWM') - before


def _status_bytes(key: str) -> int:
    """Return a size that Linux reports of this process."""
    for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines():
        name, _, value = line.partition(':')
        if name == key:
            return int(value.split()[0]) * 1024
    raise KeyError(key)


def parse_args() -> argparse.Namespace:
    """Read the command line; the defaults are ICFG-PEDES' test split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--queries', type=int, default=19848)
    parser.add_argument('--gallery', type=int, default=19848)
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--ids', type=int, default=1000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--seed', type=int, default=0)
    add_json_option(parser)
    args = parser.parse_args()
    for name in ('queries', 'gallery', 'dim', 'ids', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, got {getattr(args, name)}')
    return args


def measure(size: dict[str, int], repeats: int) -> dict[str, Any]:
    """Measure memory, then time, and return the figures of the report."""
    print('memory: one evaluation in a fresh process ...', flush=True)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        extra = pool.apply(peak_extra_bytes, (size,))
    world = make_world(**size)
    product(world)
    product_seconds, rank_seconds = [], []
    for repeat in range(repeats):
        product_seconds.append(seconds(lambda: product(world)))
        rank_seconds.append(seconds(lambda: rank_metrics(*world)))
        print(
            f'time: repeat {repeat + 1}/{repeats}: '
            f'product {product_seconds[-1]:.2f} s, '
            f'rank_metrics {rank_seconds[-1]:.2f} s',
            flush=True,
        )
    ratios = [
        rank / floor for rank, floor in zip(rank_seconds, product_seconds, strict=True)
    ]
    return {
        'size': size,
        'threads': torch.get_num_threads(),
        'product_seconds': product_seconds,
        'rank_seconds': rank_seconds,
        'product_median_seconds': statistics.median(product_seconds),
        'rank_median_seconds': statistics.median(rank_seconds),
        'ratio': statistics.median(ratios),
        'ratio_range': [min(ratios), max(ratios)],
        'peak_extra_gb': extra / 1e9,
        'metrics': rank_metrics(*world),
        'targets': {'ratio': MAX_RATIO, 'peak_extra_gb': MAX_EXTRA_GB},
    }


def main() -> int:
    """Run the benchmark; return 1 when a target is missed."""
    args = parse_args()
    size = {
        name: getattr(args, name)
        for name in ('queries', 'gallery', 'dim', 'ids', 'seed')
    }
    figures = measure(size, args.repeats)
    met = figures['ratio'] <= MAX_RATIO and figures['peak_extra_gb'] <= MAX_EXTRA_GB
    low, high = figures['ratio_range']
    print(f"""
{args.queries} queries x {args.gallery} images, {args.dim}-d, {args.ids} ids, \
{figures['threads']} threads, median of {args.repeats}
similarity product   {figures['product_median_seconds']:8.2f} s
rank_metrics         {figures['rank_median_seconds']:8.2f} s
ratio                {figures['ratio']:8.2f}    \
(target: at most {MAX_RATIO:g}; of each repeat: {low:.2f} to {high:.2f})
peak extra memory    {figures['peak_extra_gb']:8.3f} GB \
(target: at most {MAX_EXTRA_GB:g}; peak resident set of a fresh process)
targets {'met' if met else 'MISSED'}""")
    if args.json is not None:
        write_report(args.json, figures)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
