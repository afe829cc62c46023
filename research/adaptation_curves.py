"""Plot how retrieval develops during the adaptation, on a development world.

    python research/adaptation_curves.py [--methods gckd …]
        [--directions street2mall …]

Trains once more, with a :class:`TargetProbeHook`: Rank-1 on the target's test split,
and on what the source holds out (its validation split, or its test split where it has
none), every 50 iterations. The probe reads labels for the log alone. Of ``continued``
the source's curve says whether the source-only model has reached its plateau when the
adaptation begins. Rows are in ``adaptation_curves.json``, with a figure beside it;
those that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import row_file
from adaptation import (
    DEVELOPMENT,
    DIRECTIONS,
    METHODS,
    RESULTS,
    add_place_options,
    write_worlds,
)
from adaptation_report import colour_of, document_beside, write_into_document
from adaptation_run import KEY, Method, Run, completed, key_of
from matplotlib.figure import Figure
from mmengine.config import Config

INTERVAL = 50
SHOWN = ['continued', 'reclip', 'gckd']

Curves = dict[str, Any]


class ProbedRun(Run):
    """A run that is evaluated with labels on the way, and is otherwise the same."""

    def __init__(self, *run: Any) -> None:
        super().__init__(*run)
        self.folder = self.folder.with_name(f'{self.folder.name}_probed')

    def curves(self) -> Curves:
        """Return Rank-1 by iteration, on the target and on the source's held-out."""
        steps: dict[int, dict[str, float]] = {}
        for path in self.folder.glob('*/vis_data/scalars.json'):
            for line in path.read_text().splitlines():
                scalars = json.loads(line)
                shown = {k: v for k, v in scalars.items() if k.startswith('probe/')}
                if shown:
                    steps[scalars['step']] = shown
        return {
            **dict(zip(KEY, self.key, strict=True)),
            'iterations': sorted(steps),
            **{
                f'{end}_R1': [
                    round(steps[step][f'probe/{end}/R1'], 2) for step in sorted(steps)
                ]
                for end in ('target', 'source')
            },
        }

    def _config(self, method: Method) -> Config:
        cfg = super()._config(method)
        held_out = cfg.get(f'{self.source}_val') or cfg[f'{self.source}_test']
        tests = {'target': cfg[f'{self.target}_test'], 'source': held_out}
        self._localise(tests)
        probe = {'type': 'TargetProbeHook', 'test_sets': tests, 'interval': INTERVAL}
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), probe]
        return cfg


def plot(rows: Sequence[Curves], path: Path) -> None:
    """Plot a panel for each direction, the target's Rank-1 over iterations."""
    directions = list(dict.fromkeys((row['source'], row['target']) for row in rows))
    size = (1 + 3.6 * len(directions), 3.6)
    figure = Figure(figsize=size, layout='constrained')
    panels = figure.subplots(1, len(directions), squeeze=False)[0]
    methods = list(dict.fromkeys(row['method'] for row in rows))
    for axes, direction in zip(panels, directions, strict=True):
        for row in rows:
            if (row['source'], row['target']) != direction:
                continue
            colour = colour_of(row['method'], methods.index(row['method']))
            curve = row['iterations'], row['target_R1']
            axes.plot(*curve, '.-', color=colour, label=row['method'])
        axes.set_title(' → '.join(direction), fontsize=10)
        axes.set_xlabel('iteration')
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('Rank-1 on the target, %')
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def lines_of(rows: Sequence[Curves]) -> list[str]:
    """Return a Markdown table: Rank-1 at the start and the end of the adaptation."""
    lines = ['| direction | method | target | source, held out |', '|---' * 4 + '|']
    for row in rows:
        curves = row['target_R1'], row['source_R1']
        ends = [f'{curve[0]:.1f} → {curve[-1]:.1f}' for curve in curves]
        direction = f'{row["source"]} → {row["target"]}'
        lines.append(f'| {" | ".join([direction, row["method"], *ends])} |')
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what has not been trained, print and plot."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--methods', nargs='+', default=SHOWN, choices=METHODS)
    parser.add_argument('--world', type=int, default=0, choices=DEVELOPMENT)
    parser.add_argument(
        '--directions', nargs='+', default=['street2mall'], choices=DIRECTIONS
    )
    parser.add_argument('--rows', type=Path, default=RESULTS / 'adaptation_curves.json')
    place_of = add_place_options(parser)
    options = parser.parse_args(arguments)
    place = place_of(options)
    done = {key_of(row) for row in row_file.read(options.rows)}
    runs = [
        ProbedRun(name, METHODS[name], direction, options.world, place)
        for direction in options.directions
        for name in options.methods
    ]
    missing = [run for run in runs if run.key not in done]
    write_worlds(missing)
    for run, _ in completed(missing, options.jobs):
        with row_file.changing(options.rows) as rows:
            rows.append(cast(ProbedRun, run).curves())
    rows = row_file.read(options.rows)
    lines = lines_of(rows)
    print('\n'.join(lines))
    write_into_document(document_beside(options.rows), options.rows.stem, lines)
    if rows:
        plot(rows, options.rows.with_suffix('.png'))
    return 0


if __name__ == '__main__':
    sys.exit(main())
