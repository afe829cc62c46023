"""Measure the adaptation where what it assumes of the target does not hold.

    python research/adaptation_stress.py [--methods gckd …] [--worlds 0]
        [--directions street2mall …] [--stresses strangers …] [--jobs 2]

- ``strangers``: half of the target's captions describe people without an image;
- ``small_memory``: the memories hold a quarter of the target's images, and as many
  captions: an eighth of them, where an image has two;
- ``unbalanced``: the target's people have 1 to 20 images, instead of 4 each.

Test sets and source stages are those of ``adaptation.py``. Rows, with the gain over
source-only, are in ``adaptation_stress.json``; those that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import row_file
from adaptation import (
    DEVELOPMENT,
    DIRECTIONS,
    METHODS,
    RESULTS,
    add_place_options,
    write_worlds,
)
from adaptation_report import document_beside, write_into_document
from adaptation_run import STAGES, Method, Run, completed, key_of
from mmengine.config import Config

from gckd_mm.fileio import write_atomically
from gckd_mm.synthpedes.domain import Sizes, SynthDomain, default_sizes
from gckd_mm.synthpedes.writer import write_domain

Record = dict[str, Any]
MAX_IMAGES, MEAN_IMAGES = 20, 4


class Stress(NamedTuple):
    """What is done to a target's train set.

    Attributes:
        choose: Turns the records of the train split into others; None leaves them.
        images: Images of each person that are rendered to choose from.
        memory_fraction: Rows of a memory, as a fraction of the target's images.
    """

    choose: Callable[[list[Record]], list[Record]] | None = None
    images: int = MEAN_IMAGES
    memory_fraction: float | None = None


def without_images_of_half(records: list[Record]) -> list[Record]:
    """Drop the images of every other person; their captions go to other records.

    The pairing of captions with images is dropped by the adaptation in any case.
    """
    kept = [record for record in records if record['id'] % 2 == 0]
    dropped = [record for record in records if record['id'] % 2]
    joined = [{**record, 'captions': [*record['captions']]} for record in kept]
    for number, record in enumerate(dropped):
        joined[number % len(joined)]['captions'] += record['captions']
    return joined


def unbalanced(records: list[Record]) -> list[Record]:
    """Keep 1 to 20 images of each person: many have few, and few have many."""
    people = sorted({record['id'] for record in records})
    counts = np.random.default_rng(0).geometric(1 / MEAN_IMAGES, len(people))
    left = dict(zip(people, counts.clip(1, MAX_IMAGES).tolist(), strict=True))
    kept = []
    for record in records:
        if left[record['id']] > 0:
            left[record['id']] -= 1
            kept.append(record)
    return kept


STRESSES = {
    'strangers': Stress(without_images_of_half),
    'small_memory': Stress(memory_fraction=0.25),
    'unbalanced': Stress(unbalanced, images=MAX_IMAGES),
}


class StressedRun(Run):
    """A run whose target is not as the method assumes.

    Args:
        stress: Key of ``STRESSES``.
        **run: See :class:`Run`.
    """

    def __init__(self, stress: str, **run: Any) -> None:
        super().__init__(**run)
        self.stress = stress
        self.folder = self.folder.with_name(f'{self.folder.name}_{stress}')

    def __str__(self) -> str:
        return f'{super().__str__()}, {self.stress}'

    @property
    def train_set(self) -> Path:
        """Where the target's changed train set lies."""
        world = self.place.data / f'world{self.world}'
        return world / f'{self.target}_{self.stress}'

    def write_train_set(self) -> None:
        """Render the people, and write the changed annotations, unless that is done."""
        stress = STRESSES[self.stress]
        if stress.choose is None or self.train_set.exists():
            return
        partial = self.train_set.with_name(f'.{self.train_set.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        sizes = Sizes(val=0, images=stress.images)
        write_domain(SynthDomain(self.target, self.world, sizes), partial)
        description = json.loads((partial / 'synthpedes.json').read_text())
        path = partial / description['annotations']
        records = json.loads(path.read_text())
        train = [record for record in records if record['split'] == 'train']
        write_atomically(path, json.dumps(stress.choose(train), indent=1))
        (partial / 'synthpedes.json').unlink()  # it is that rendering no more
        shutil.move(partial, self.train_set)

    def _config(self, method: Method) -> Config:
        cfg = super()._config(method)
        stress = STRESSES[self.stress]
        if 'target' in cfg.train_dataloader.dataset and stress.choose is not None:
            cfg.train_dataloader.dataset.target.data_root = str(self.train_set)
        fraction = stress.memory_fraction
        if fraction is not None and 'target' in cfg.train_dataloader.dataset:
            sizes = default_sizes(self.target)
            part = cfg.model if 'memory_size' in cfg.model else cfg.model.adaptation
            if 'memory_size' not in (part or {}):
                raise SystemExit(f'{self.name} has no memory to make small')
            part.memory_size = int(fraction * sizes.train * sizes.images)
        return cfg


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--methods', nargs='+', default=['gckd'], choices=METHODS)
    parser.add_argument('--stresses', nargs='+', default=[*STRESSES], choices=STRESSES)
    parser.add_argument(
        '--worlds', type=int, nargs='+', default=[0], choices=DEVELOPMENT
    )
    parser.add_argument(
        '--directions',
        nargs='+',
        default=['street2mall', 'mall2street', 'street2campus'],
        choices=DIRECTIONS,
    )
    parser.add_argument('--rows', type=Path, default=RESULTS / 'adaptation_stress.json')
    place_of = add_place_options(parser)
    options = parser.parse_args(arguments)
    rows = row_file.read(options.rows)
    done = {(row['stress'], *key_of(row)) for row in rows}
    runs = [
        StressedRun(
            stress,
            name=name,
            method=METHODS[name],
            direction=direction,
            world=world,
            place=place_of(options),
        )
        for world in options.worlds
        for direction in options.directions
        for stress in options.stresses
        for name in options.methods
    ]
    missing = [run for run in runs if (run.stress, *run.key) not in done]
    write_worlds(missing)
    for run in missing:
        run.write_train_set()
    for done_run, row in completed(missing, options.jobs):
        stressed = cast(StressedRun, done_run)
        direction, world = f'{stressed.source}2{stressed.target}', stressed.world
        base = Run('source_only', STAGES['source'], direction, world, stressed.place)
        gain = round(row['R1'] - base.row()['R1'], 4)
        with row_file.changing(options.rows) as rows:
            rows.append({'stress': stressed.stress, **row, 'gain': gain})
    lines = lines_of(row_file.read(options.rows))
    print('\n'.join(lines))
    write_into_document(document_beside(options.rows), options.rows.stem, lines)
    return 0


def lines_of(rows: Sequence[Record]) -> list[str]:
    """Return a Markdown table: the gain over source-only in each run."""
    lines = ['| target | method | runs: Rank-1 (gain) | mean gain | lowest |']
    lines.append('|---' * 5 + '|')
    for stress, method in dict.fromkeys((r['stress'], r['method']) for r in rows):
        own = [r for r in rows if (r['stress'], r['method']) == (stress, method)]
        runs = ', '.join(
            f'{r["source"]} → {r["target"]} {r["world"]}: {r["R1"]:.1f} '
            f'({r["gain"]:+.1f})'
            for r in own
        )
        gains = [r['gain'] for r in own]
        mean, low = f'{np.mean(gains):+.1f}', f'{min(gains):+.1f}'
        lines.append(f'| {stress} | {method} | {runs} | {mean} | {low} |')
    return lines


if __name__ == '__main__':
    sys.exit(main())
