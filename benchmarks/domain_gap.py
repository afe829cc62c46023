"""Measure what the change of domain costs: source-only against target-supervised.

    python benchmarks/domain_gap.py [--worlds 0 1 2] [--json PATH]

Draws the worlds, trains on each domain from SynthCLIP-tiny, and tests on every domain.
The loss is then taken apart: the same people are drawn by the source's camera and
described by the source's annotator, both, or neither. What is there already (drawings,
checkpoints, scores) is kept: a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.engine.direction import turned
from gckd_mm.synthpedes.domain import Sizes, SynthDomain
from gckd_mm.synthpedes.places import WORLD_NAMES
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.writer import write_domain

sys.path.insert(0, str(Path(__file__).parent))
from report import add_json_option, write_report

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = 'gckd_mm://synthclip_tiny_web'
#: the test split of the default size: a picture does not depend on the sizes
TEST_ONLY = Sizes(train=2, val=0)


class Costs(NamedTuple):
    """Rank-1 of a source-only model on the people of the target, in percent."""

    none: float  # the source's camera and annotator
    camera: float  # the target's camera, the source's annotator
    annotator: float  # the source's camera, the target's annotator
    both: float  # the target as it is

    @property
    def camera_alone(self) -> float:
        """What the camera costs when the annotator stays, a share of the loss."""
        return (self.none - self.camera) / (self.none - self.both)

    @property
    def annotator_alone(self) -> float:
        """What the annotator costs when the camera stays, a share of the loss."""
        return (self.none - self.annotator) / (self.none - self.both)

    @property
    def camera_share(self) -> float:
        """The camera's part when the two are added in either order, on average."""
        return (self.camera_alone + 1 - self.annotator_alone) / 2


class World:
    """One world on disk, and the models that are trained in it.

    Args:
        seed: The world's.
        folder: Where everything of the benchmark lies.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.data = folder / 'data' / f'world{seed}'
        self.work = folder / 'work' / f'world{seed}'

    def draw(self) -> None:
        """Draw the domains, and each test split once more as every camera sees it."""
        for name in WORLD_NAMES:
            write_domain(SynthDomain(name, self.seed), self.data / name)
            for other in WORLD_NAMES:
                crossed = SynthDomain(
                    name, self.seed, TEST_ONLY, camera_of=other, annotator_of=other
                )
                write_domain(crossed, self.crossed(name, other))

    def crossed(self, name: str, other: str) -> Path:
        """Return the folder of a domain's people, shot and described by another's."""
        return self.data / 'crossed' / f'{name}_by_{other}'

    def train(self, config: str, source: str, target: str) -> Path:
        """Train a config of ``configs/baselines`` in this world; return its weights."""
        cfg = Config.fromfile(ROOT / f'configs/baselines/{config}.py')
        cfg = turned(cfg, source, target)
        work_dir = self.work / Path(cfg.filename).stem
        found = find_last_checkpoint(work_dir)
        if found is None or not found.endswith(f'_{cfg.train_cfg.max_iters}.pth'):
            dataset = cfg.train_dataloader.dataset
            for part in dataset.get('datasets', [dataset]):
                part.data_root = str(self.data / Path(part.data_root).name)
            cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
            run_tool('train', dump(cfg, work_dir), '--work-dir', work_dir)
            found = find_last_checkpoint(work_dir)
        assert found is not None
        return Path(found)

    def test(
        self, checkpoint: Path | str, pairs: Iterable[tuple[Path, Path, str]]
    ) -> list[dict[str, float]]:
        """Test weights on (gallery folder, query folder, domain) triples."""
        cfg = Config.fromfile(ROOT / 'configs/baselines/source_only_street2mall.py')
        sets = {}
        for number, (gallery, query, name) in enumerate(pairs):
            parts = cfg[f'{name}_test'].to_dict()
            parts['gallery']['dataset']['data_root'] = str(gallery)
            parts['query']['dataset']['data_root'] = str(query)
            sets[f'set{number}'] = parts
        cfg.test_dataloader = sets
        path = Path(checkpoint)
        folder = self.work / 'zero_shot' if checkpoint == PRETRAINED else path.parent
        out = folder / 'results.json'
        if not out.exists():
            arguments = (dump(cfg, folder / 'test'), checkpoint, '--out', out)
            run_tool('test', *arguments, '--work-dir', folder / 'test')
        metrics = json.loads(out.read_text())['metrics']
        return [metrics[name] for name in sets]


def dump(cfg: Config, folder: Path) -> Path:
    """Write a config that the tools can read."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def run_tool(name: str, *arguments: object) -> None:
    """Run one of the tools, its output into a log beside what it writes."""
    command = [sys.executable, str(ROOT / f'tools/{name}.py'), *map(str, arguments)]
    log = Path(str(arguments[0])).with_suffix('.log')
    print(f'  {name} {Path(str(arguments[0])).parent}', flush=True)
    with open(log, 'w', encoding='utf-8') as file:
        subprocess.run(command, stdout=file, stderr=file, check=True, cwd=ROOT)


def measure(world: World, with_source: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of one world, one for each (training, test domain)."""
    world.draw()
    own = {name: world.crossed(name, name) for name in WORLD_NAMES}
    plain = [(own[name], own[name], name) for name in WORLD_NAMES]
    row = {'world': world.seed}
    for name, scores in zip(WORLD_NAMES, world.test(PRETRAINED, plain), strict=True):
        yield {**row, 'method': 'zero_shot', 'source': '', 'target': name, **scores}
    for source in WORLD_NAMES:
        others = [name for name in WORLD_NAMES if name != source]
        crossed = [
            (gallery, query, target)
            for target in others
            for x in (world.crossed(target, source),)
            for gallery, query in ((x, x), (own[target], x), (x, own[target]))
        ]
        checkpoint = world.train('oracle_mall', source, source)
        scored = world.test(checkpoint, [*plain, *crossed])
        for name, scores in zip(WORLD_NAMES, scored, strict=False):
            method = 'oracle_target_only' if name == source else 'source_only'
            yield {**row, 'method': method, 'source': source, 'target': name, **scores}
        for number, target in enumerate(others):
            parts = scored[3 + 3 * number : 6 + 3 * number]
            both = scored[WORLD_NAMES.index(target)]
            costs = Costs(*(part['R1'] for part in (*parts, both)))
            yield {
                **row,
                'method': 'crossing',
                'source': source,
                'target': target,
                **costs._asdict(),
            }
    for source, target in permutations(WORLD_NAMES, 2) if with_source else ():
        checkpoint = world.train('oracle_street2mall', source, target)
        (scores,) = world.test(checkpoint, [(own[target], own[target], target)])
        yield {**row, 'method': 'oracle', 'source': source, 'target': target, **scores}


def summarise(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table: Rank-1 in each world, and what the parts cost."""

    def column(method: str, source: str, target: str, key: str = 'R1') -> list[float]:
        return [
            row[key]
            for row in rows
            if (row['method'], row['source'], row['target']) == (method, source, target)
        ]

    def show(values: list[float]) -> str:
        return ' / '.join(f'{value:.1f}' for value in values)

    has_both = any(row['method'] == 'oracle' for row in rows)
    header = [
        'direction',
        'zero-shot',
        'source-only',
        'target-supervised',
        *(['with source'] if has_both else []),
        'loss',
        'camera alone',
        'annotator alone',
        'camera : annotator',
    ]
    lines = [f'| {" | ".join(header)} |', '|---' * len(header) + '|']
    for source, target in permutations(WORLD_NAMES, 2):
        columns = [column('crossing', source, target, key) for key in Costs._fields]
        costs = [Costs(*values) for values in zip(*columns, strict=True)]
        alone = [
            [100 * cost.camera_alone for cost in costs],
            [100 * cost.annotator_alone for cost in costs],
        ]
        camera = round(100 * statistics.mean(cost.camera_share for cost in costs))
        ours = column('source_only', source, target)
        oracle = column('oracle_target_only', target, target)
        loss = [o - s for o, s in zip(oracle, ours, strict=True)]
        cells = [
            f'{source} → {target}',
            show(column('zero_shot', '', target)),
            show(ours),
            show(oracle),
            *([show(column('oracle', source, target)) or '–'] if has_both else []),
            f'**{statistics.mean(loss):.1f}** ({show(loss)})',
            *(
                f'{statistics.mean(shares):.0f} % '
                f'({" / ".join(f"{share:.0f}" for share in shares)})'
                for shares in alone
            ),
            f'{camera} : {100 - camera}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--worlds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--with-source',
        type=int,
        nargs='*',
        default=[],
        metavar='WORLD',
        help='worlds in which to train on source and target together as well',
    )
    parser.add_argument('--folder', type=Path, default=Path('work_dirs/domain_gap'))
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    for seed in options.worlds:
        print(f'world {seed}', flush=True)
        world = World(seed, options.folder.resolve() / VERSION)
        rows += list(measure(world, seed in options.with_source))
    print('\n'.join(summarise(rows)))
    if options.json:
        write_report(options.json, {'synthpedes': VERSION, 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())
