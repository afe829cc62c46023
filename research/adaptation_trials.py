"""Try settings of a method on development worlds, and log every trial.

    python research/adaptation_trials.py mmd model.adaptation.loss_weight.end=1 …
    python research/adaptation_trials.py --list

Each ``KEY=VALUE`` is one trial; several keys of one trial are joined by a comma
(``key=1,other=2``), and ``default`` tries the config as it is. A method gets at most 8
trials; worlds other than 0 to 2 are refused. What has been tried is in
``results/trials.json`` and is not tried again; its settings are changes to the config
of the commit that is named there. (GCKD's own settings were chosen on world 0 before
this log began: see ``RESULTS.md``.)
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from adaptation_run import KEY, STAGES, Run, completed, fingerprint
from report import commit

MAX_TRIALS = 8


class Trials:
    """All trials of all methods, in one file, to which several processes may add.

    Args:
        path: A JSON list; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def number_of(self, method: str, options: dict[str, Any], settings: str) -> int:
        """Return the number of the trial of these settings; a new one if it is new.

        Args:
            method: Its name.
            options: The changes to the config.
            settings: Tells all settings from others: with another config, the same
                changes are another trial.

        Raises:
            SystemExit: If the method has had its trials.
        """
        with row_file.changing(self.path) as trials:
            own = [trial for trial in trials if trial['method'] == method]
            for trial in own:
                if trial.get('settings') == settings:
                    return trial['trial']
            if len(own) >= MAX_TRIALS:
                raise SystemExit(f'{method} has had its {MAX_TRIALS} trials')
            number = len(own) + 1
            trial = {'method': method, 'trial': number, 'options': options}
            trial |= {'settings': settings, 'commit': commit(), 'runs': []}
            trials.append(trial)
        return number  # before it runs: its number is taken

    def done(self, method: str, number: int) -> set[tuple[Any, ...]]:
        """Return source, target, world and seed of the runs that a trial has."""
        (trial,) = (t for t in row_file.read(self.path) if _is(t, method, number))
        return {tuple(run[key] for key in KEY[1:]) for run in trial['runs']}

    def add(
        self, method: str, number: int, row: dict[str, Any], baseline: float
    ) -> None:
        """Add what a trial has reached in one run."""
        ends = {key: row[key] for key in KEY[1:]}
        gain = round(row['R1'] - baseline, 4)
        with row_file.changing(self.path) as trials:
            (trial,) = (t for t in trials if _is(t, method, number))
            trial['runs'].append({**ends, 'R1': row['R1'], 'gain': gain})


def _is(trial: dict[str, Any], method: str, number: int) -> bool:
    return (trial['method'], trial['trial']) == (method, number)


def parse_options(text: str) -> dict[str, Any]:
    """Read ``key=value,key=value``; ``default`` is no change."""
    if text == 'default':
        return {}
    options = {}
    # a comma within a value is not followed by a key
    for part in re.split(r',(?=[\w.]+=)', text):
        key, equals, value = part.partition('=')
        if not equals:
            raise SystemExit(f'{part!r} is no key=value')
        try:
            options[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[key] = value
    return options


def lines_of(trials: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of trials: mean gain over source-only, and the runs."""
    lines = ['| method | trial | settings | gain | runs |', '|---' * 5 + '|']
    for trial in trials:
        settings = ', '.join(f'{k}={v}' for k, v in trial['options'].items())
        gains = [run['gain'] for run in trial['runs']]
        mean = f'{statistics.mean(gains):+.1f}' if gains else '–'
        runs = ', '.join(
            f'{c["source"]} → {c["target"]} {c["world"]}: {c["gain"]:+.1f}'
            for c in trial['runs']
        )
        columns = [trial['method'], str(trial['trial']), settings or 'default', mean]
        lines.append(f'| {" | ".join([*columns, runs])} |')
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Try, and print the trials of the method."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('method', nargs='?', choices=METHODS)
    parser.add_argument('settings', nargs='*', metavar='KEY=VALUE[,KEY=VALUE]')
    parser.add_argument('--list', action='store_true', help='print all trials and stop')
    parser.add_argument(
        '--worlds', type=int, nargs='+', default=[0], choices=DEVELOPMENT
    )
    parser.add_argument(
        '--directions',
        nargs='+',
        default=['street2mall', 'mall2street'],
        choices=DIRECTIONS,
    )
    parser.add_argument('--trials', type=Path, default=RESULTS / 'trials.json')
    place_of = add_place_options(parser)
    options = parser.parse_args(arguments)
    trials = Trials(options.trials)
    if options.list or options.method is None:
        print('\n'.join(lines_of(row_file.read(options.trials))))
        return 0
    place = place_of(options)
    jobs = []
    for text in options.settings:
        changes = parse_options(text)
        method = METHODS[options.method]
        method = method._replace(options={**method.options, **changes})
        number = trials.number_of(options.method, changes, fingerprint(method))
        done = trials.done(options.method, number)
        name = f'{options.method}-trial{number}'
        for world in options.worlds:
            for direction in options.directions:
                run = Run(name, method, direction, world, place)
                if run.key[1:] not in done:
                    base = Run('source_only', STAGES['source'], direction, world, place)
                    jobs.append((number, run, base))
    write_worlds(run for _, run, _ in jobs)
    number_of = {run: number for number, run, _ in jobs}
    bases = {base.folder: base for _, _, base in jobs}
    scores = {c.key[1:]: r['R1'] for c, r in completed([*bases.values()], options.jobs)}
    able = [run for run in number_of if run.key[1:] in scores]
    for run, row in completed(able, options.jobs):
        trials.add(options.method, number_of[run], row, scores[run.key[1:]])
    tried = row_file.read(options.trials)
    write_into_document(
        document_beside(options.trials), options.trials.stem, lines_of(tried)
    )
    print('\n'.join(lines_of([t for t in tried if t['method'] == options.method])))
    return 0


if __name__ == '__main__':
    sys.exit(main())
