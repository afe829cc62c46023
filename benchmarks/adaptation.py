"""Measure what the adaptation gains over source-only training.

    python benchmarks/adaptation.py [--methods cmkd gmp gckd] [--worlds 0 1 2]
        [--directions street2mall ...] [--jobs 2] [--json PATH]

All methods of a world and a source branch off the weights of one source stage, which is
the source-only model itself. Worlds 0 to 2 are for development: settings were chosen on
them. Rows that are there already are kept: a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.datasets.synthpedes.domain import SynthDomain
from gckd_mm.datasets.synthpedes.places import WORLD_NAMES
from gckd_mm.datasets.synthpedes.version import VERSION
from gckd_mm.datasets.synthpedes.writer import write_domain

sys.path.insert(0, str(Path(__file__).parent))
from domain_gap import ROOT, World, dump
from report import add_json_option, write_report

DIRECTIONS = [f'{source}2{target}' for source, target in permutations(WORLD_NAMES, 2)]
#: method -> its config, None for what the source stage ends with
METHODS: dict[str, str | None] = {
    'source_only': None,
    'cmkd': 'ablations/cmkd_{}',
    'gmp': 'ablations/gmp_{}',
    'gckd': 'gckd_{}',
}
METRICS = ('R1', 'R5', 'R10', 'mAP', 'mINP')


class Cell:
    """One method in one direction of one world.

    Args:
        world: On disk, with its source stages.
        method: Key of ``METHODS``.
        direction: ``<source>2<target>``.
        folder: Where the benchmark keeps its runs.
        threads: Of each process.
    """

    def __init__(
        self, world: World, method: str, direction: str, folder: Path, threads: int
    ) -> None:
        self.world = world
        self.method = method
        self.source, self.target = direction.split('2')
        self.config = (METHODS[method] or 'baselines/source_only_{}').format(direction)
        self.folder = folder / f'world{world.seed}' / f'{method}_{direction}'
        self.environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}

    def row(self) -> dict[str, Any]:
        """Return the row, from disk if it is there."""
        path = self.folder / 'row.json'
        if not path.exists():
            seconds = 0.0
            checkpoint = self.world.train(f'oracle_{self.source}')
            if METHODS[self.method] is not None:
                seconds, checkpoint = self._train(checkpoint)
            out = self.folder / 'results.json'
            self._run('test', checkpoint, '--out', out)
            metrics = json.loads(out.read_text())['metrics'][self.target]
            row = {
                'method': self.method,
                'source': self.source,
                'target': self.target,
                'seed': 0,
                'world': self.world.seed,
                **{name: metrics[name] for name in METRICS},
                'train_seconds': round(seconds, 1),
            }
            path.write_text(json.dumps(row))
        found = json.loads(path.read_text())
        print(
            f'  world {found["world"]} {self.config}: R1 {found["R1"]:.2f}', flush=True
        )
        return found

    def _train(self, source: Path) -> tuple[float, Path]:
        """Adapt, unless that is done; return the seconds it took, and the weights."""
        done = self.folder / 'train_seconds.json'
        if not done.exists():
            began = time.perf_counter()
            self._run('train', '--source-checkpoint', source)
            done.write_text(json.dumps(time.perf_counter() - began))
        return json.loads(done.read_text()), Path(
            find_last_checkpoint(self.folder) or ''
        )

    def _run(self, tool: str, *arguments: object) -> None:
        cfg = Config.fromfile(ROOT / f'configs/{self.config}.py')
        _point_at(cfg.train_dataloader.dataset, self.world.data)
        cfg.test_dataloader = {self.target: cfg.test_dataloader[self.target]}
        _point_at(cfg.test_dataloader, self.world.data)
        _load_in_process(cfg.train_dataloader)
        _load_in_process(cfg.test_dataloader)
        path = dump(cfg, self.folder / tool)
        command = [sys.executable, ROOT / f'tools/{tool}.py', path, *arguments]
        command += ['--work-dir', self.folder]
        with open(self.folder / f'{tool}.log', 'w', encoding='utf-8') as log:
            subprocess.run(
                [str(part) for part in command],
                stdout=log,
                stderr=log,
                check=True,
                cwd=ROOT,
                env=self.environment,
            )


def _point_at(node: Any, data: Path) -> None:
    """Let every dataset below a node of a config read another world."""
    if isinstance(node, dict):
        if 'data_root' in node:
            node['data_root'] = str(data / Path(node['data_root']).name)
        for part in node.values():
            _point_at(part, data)


def _load_in_process(node: Any) -> None:
    """Leave the cores to the runs beside this one."""
    if isinstance(node, dict):
        if 'num_workers' in node:
            node.update(num_workers=0, persistent_workers=False)
        for part in node.values():
            _load_in_process(part)


def summarise(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table: Rank-1 in each world, and the gain."""
    methods = [name for name in METHODS if any(r['method'] == name for r in rows)]
    lines = [
        f'| direction | {" | ".join(methods)} |',
        '|---' * (len(methods) + 1) + '|',
    ]
    gains: dict[str, list[float]] = {method: [] for method in methods}
    for direction in DIRECTIONS:
        cells = {
            (r['method'], r['world']): r['R1']
            for r in rows
            if f'{r["source"]}2{r["target"]}' == direction
        }
        worlds = sorted({world for _, world in cells})
        if not worlds:
            continue
        shown = []
        for method in methods:
            values = [cells[method, w] for w in worlds if (method, w) in cells]
            gains[method] += [
                cells[method, w] - cells['source_only', w]
                for w in worlds
                if (method, w) in cells and ('source_only', w) in cells
            ]
            shown.append(' / '.join(f'{value:.1f}' for value in values) or '–')
        lines.append(f'| {direction.replace("2", " → ")} | {" | ".join(shown)} |')
    means = [
        f'{statistics.mean(gains[method]):+.1f} ({len(gains[method])} cells)'
        for method in methods
    ]
    return [*lines, f'| mean gain | {" | ".join(means)} |']


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--methods', nargs='+', default=list(METHODS), choices=METHODS)
    parser.add_argument('--worlds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--directions', nargs='+', default=DIRECTIONS, choices=DIRECTIONS
    )
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--threads', type=int, default=1, help='threads of each run')
    parser.add_argument('--folder', type=Path, default=Path('work_dirs/adaptation'))
    parser.add_argument(
        '--worlds-folder', type=Path, default=Path('work_dirs/domain_gap')
    )
    add_json_option(parser)
    options = parser.parse_args(arguments)
    cells = []
    for seed in options.worlds:
        world = World(seed, options.worlds_folder.resolve() / VERSION)
        for name in WORLD_NAMES:
            write_domain(SynthDomain(name, seed), world.data / name)
        cells += [
            Cell(world, method, direction, options.folder.resolve(), options.threads)
            for direction in options.directions
            for method in options.methods
        ]
    # The source stages first, one by one: several methods wait for the same one.
    for cell in cells:
        cell.world.train(f'oracle_{cell.source}')
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(Cell.row, cells))
    print('\n'.join(summarise(rows)))
    if options.json:
        write_report(options.json, {'synthpedes': VERSION, 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())
