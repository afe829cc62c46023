"""One cell of the adaptation's tables: a method, a direction, a world."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.engine.direction import turned
from gckd_mm.fileio import write_atomically
from gckd_mm.synthpedes.places import WORLD_NAMES

sys.path.insert(0, str(Path(__file__).parent))
from report import commit

ROOT = Path(__file__).resolve().parents[1]
METRICS = ('R1', 'R5', 'R10', 'mAP', 'mINP')


class Method(NamedTuple):
    """What is trained.

    Attributes:
        config: Below ``configs/``, without the suffix, for street → mall.
        options: Changes to it, as ``--cfg-options`` takes them.
        start: Key of ``STAGES``: the source stage that the run branches off. With
            None, it branches off none.
        symmetric: Whether source and target are the same to it, so that one run is
            tested on both.
    """

    config: str
    options: Mapping[str, Any] = {}
    start: str | None = 'source'
    symmetric: bool = False


SOURCE_ONLY = 'baselines/source_only_street2mall'
#: the source stages, by the names of their folders
STAGES = {
    'source': Method(SOURCE_ONLY, start=None),
    # the vocabulary is then that of the source's captions
    'scratch': Method(SOURCE_ONLY, {'load_from': None}, start=None),
}


class Place(NamedTuple):
    """Where a benchmark reads and writes.

    Attributes:
        data: Worlds, as ``world<seed>/<domain>``.
        runs: Work dirs of all runs.
        threads: Of each process.
    """

    data: Path
    runs: Path
    threads: int


class Cell:
    """A method in one direction of one world, with the seed of that world's runs.

    Args:
        name: Of the method, in tables.
        method: What it is.
        direction: ``<source>2<target>``.
        world: Seed of the generator.
        place: Where things lie.
    """

    def __init__(
        self, name: str, method: Method, direction: str, world: int, place: Place
    ) -> None:
        self.name = name
        self.method = method
        self.source, self.target = direction.split('2')
        self.world = world
        self.seed = seed_of(world)
        self.place = place
        self.folder = place.runs / f'world{world}' / f'{name}_{direction}'

    def __str__(self) -> str:
        return f'{self.name} {self.source} → {self.target}, world {self.world}'

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells this cell's row from others."""
        return self.name, self.source, self.target, self.world

    @property
    def run_folder(self) -> Path:
        """Where this cell's training lies; some share it with others."""
        world = self.folder.parent
        for stage, method in STAGES.items():
            if self.method == method:
                return world / f'{stage}_{self.source}'
        if self.method.symmetric:
            return world / '_'.join([self.name, *sorted((self.source, self.target))])
        return self.folder

    def row(self) -> dict[str, Any]:
        """Train what has not been trained, test it, and return the figures."""
        run = self.train()
        out = self.folder / 'results.json'
        if not out.exists() or out.stat().st_mtime < run.ended:
            weights = find_last_checkpoint(run.folder)
            cfg = self._config(self.method)
            _run_tool('test', cfg, self.folder, self.place, [weights, '--out', out])
        scores = json.loads(out.read_text())['metrics'][self.target]
        return {
            'method': self.name,
            'source': self.source,
            'target': self.target,
            'seed': self.seed,
            'world': self.world,
            **{metric: round(scores[metric], 4) for metric in METRICS},
            'train_seconds': run.seconds,
            'peak_memory_mb': run.peak_memory_mb,
            'commit': run.commit,
        }

    @property
    def stage(self) -> Cell | None:
        """The source stage that this cell starts from."""
        start = self.method.start
        if start is None:
            return None
        direction = f'{self.source}2{self.target}'
        return Cell(start, STAGES[start], direction, self.world, self.place)

    def train(self) -> TrainedRun:
        """Train, unless that is done; the source stage first."""
        start = self.stage.train() if self.stage else None
        return self._train(self.method, self.run_folder, start)

    def _train(
        self, method: Method, folder: Path, start: TrainedRun | None
    ) -> TrainedRun:
        done = folder / 'run.json'
        weights = find_last_checkpoint(start.folder) if start else None
        made_of = {'settings': fingerprint(method), 'start': _hash_of(weights)}
        if not done.exists():
            cfg = self._config(method)
            cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
            arguments: list[object] = ['--seed', self.seed]
            if weights is not None:
                if cfg.train_dataloader.dataset.get('target_captions', True):
                    hook = {'type': 'TargetStructureHook'}
                    look = {**hook, 'pipeline': cfg.image_pipeline}
                    cfg.custom_hooks = [*cfg.custom_hooks, look]
                arguments += ['--source-checkpoint', weights]
            version = commit()
            seconds, memory = _run_tool('train', cfg, folder, self.place, arguments)
            costs = {'seconds': round(seconds, 1), 'peak_memory_mb': round(memory)}
            figures = {**costs, 'commit': version, **made_of}
            write_atomically(done, json.dumps(figures))
        figures = json.loads(done.read_text())
        if {name: figures.pop(name, '') for name in made_of} != made_of:
            raise RuntimeError(
                f'{folder} was trained with other settings, or from other weights: '
                f'delete it to train anew'
            )
        return TrainedRun(folder, ended=done.stat().st_mtime, **figures)

    def _config(self, method: Method) -> Config:
        ends = [self.source, self.target]
        if method.symmetric:
            ends.sort()
        cfg = turned(Config.fromfile(ROOT / f'configs/{method.config}.py'), *ends)
        cfg.test_dataloader = {self.target: cfg.test_dataloader[self.target]}
        cfg.merge_from_dict(dict(method.options))
        for loaders in (cfg.train_dataloader, cfg.test_dataloader):
            self._localise(loaders)
        return cfg

    def _localise(self, loaders: Any) -> None:
        """Let loaders read this world, and leave the cores to the runs beside this."""
        _read_from(loaders, self.place.data / f'world{self.world}')
        _load_in_process(loaders)


class TrainedRun(NamedTuple):
    """A finished training.

    Attributes:
        folder: Its work dir.
        seconds: Of the CPU, by the whole process: on one thread and an idle machine,
            those from its start to its end.
        peak_memory_mb: Of the process, resident.
        commit: Of the code that trained it, where it was under git.
        ended: When, in seconds since the epoch.
    """

    folder: Path
    seconds: float
    peak_memory_mb: int
    commit: str | None
    ended: float


def completed(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, dict]]:
    """Run cells, print each that is done, and yield it with its row.

    A cell that fails is named and left out; the others go on. So is one whose source
    stage failed.

    Args:
        cells: Their worlds are drawn.
        jobs: Runs at a time.
    """
    with ThreadPoolExecutor(jobs) as pool:
        # What several cells wait for first, each once.
        shared = [cell.stage or cell for cell in cells]
        once = {cell.run_folder: cell for cell in shared}
        stages = {folder: pool.submit(cell.train) for folder, cell in once.items()}
        wait(stages.values())

        def row_of(cell: Cell, stage: Cell) -> dict[str, Any]:
            stages[stage.run_folder].result()
            return cell.row()

        running = {
            pool.submit(row_of, cell, stage): cell
            for cell, stage in zip(cells, shared, strict=True)
        }
        for done, future in enumerate(as_completed(running), start=1):
            cell = running[future]
            try:
                row = future.result()
            except RuntimeError as error:
                print(f'[{done}/{len(cells)}] {cell}: {error}', flush=True)
                continue
            print(f'[{done}/{len(cells)}] {cell}: R1 {row["R1"]:.2f}', flush=True)
            yield cell, row


def seed_of(world: int) -> int:
    """Return the seed of model and batches: 0 in worlds 0 to 2, else the world's."""
    return 0 if world <= 2 else world


def fingerprint(method: Method) -> str:
    """Return a hash of all settings, wherever data and runs lie."""
    cfg = Config.fromfile(ROOT / f'configs/{method.config}.py')
    cfg.merge_from_dict(dict(method.options))
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash_of(checkpoint: Path | str | None) -> str | None:
    if checkpoint is None:
        return None
    return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:16]


def _read_from(node: Any, world: Path) -> None:
    """Let every dataset below a node of a config read another world."""
    if isinstance(node, dict):
        if 'data_root' in node and Path(node['data_root']).name in WORLD_NAMES:
            node['data_root'] = str(world / Path(node['data_root']).name)
        for part in node.values():
            _read_from(part, world)
    elif isinstance(node, list | tuple):
        for part in node:
            _read_from(part, world)


def _load_in_process(node: Any) -> None:
    """Let every loader below a node of a config do without workers."""
    if isinstance(node, dict):
        if 'num_workers' in node:
            node.update(num_workers=0, persistent_workers=False)
        for part in node.values():
            _load_in_process(part)


def _run_tool(
    name: str, cfg: Config, folder: Path, place: Place, arguments: list[object]
) -> tuple[float, float]:
    """Run one of the tools; return its CPU seconds, and its peak memory in MB."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.py'
    cfg.dump(path)
    command = [sys.executable, ROOT / f'tools/{name}.py', path, *arguments]
    command += ['--work-dir', folder]
    log_path = folder / f'{name}.log'
    with open(log_path, 'w', encoding='utf-8') as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': str(place.threads)},
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'{name} failed ({process.returncode}): see {log_path}')
    # given in KiB, on Linux
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6
