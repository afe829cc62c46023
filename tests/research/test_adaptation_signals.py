"""Which quantity goes with the gain, on random runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def signals(research_script: Callable[[str], ModuleType]) -> ModuleType:
    return research_script('adaptation_signals')


def write_run(folder: Path, score: float, *looks: dict[str, float]) -> None:
    folder.mkdir(parents=True)
    scores = {
        'metrics': {folder.name.partition('2')[2].partition('_')[0]: {'R1': score}}
    }
    (folder / 'results.json').write_text(json.dumps(scores))
    if looks:
        (folder / 'structure.json').write_text(json.dumps(looks))


def look(iteration: int, good: float, bad: float) -> dict[str, float]:
    return {'iteration': iteration, 'good': good, 'bad': bad}


def test_it_finds_what_goes_with_the_gain(
    signals: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tmp_path / 'runs/world0'
    write_run(world / 'source_only_street2mall', 40.0)
    for name, gain in zip('abcd', (-3.0, 1.0, 5.0, 9.0), strict=True):
        start, end = look(400, 0.5, 0.1), look(700, 0.5 + gain / 10, 0.1 - gain)
        write_run(world / f'{name}_street2mall', 40 + gain, start, end)
    stressed = world / 'gckd_street2mall_small_memory'
    write_run(stressed, 41.5, look(400, 0.5, 0.1), look(700, 0.65, -1.4))
    write_run(world / 'unfinished_street2mall', 99.0, look(400, 0.0, 0.0))
    write_run(world / 'no_base_mall2street', 99.0, look(4, 0, 0), look(7, 1, 1))
    places = ['--runs', str(tmp_path / 'runs'), '--results', str(tmp_path / 'all.json')]

    assert signals.main(['--worlds', '0', *places]) == 0

    printed = capsys.readouterr().out
    assert '5 runs, of which 4 helped' in printed
    assert '| good | +1.00 | +1.00 | – |' in printed
    assert '| bad | -1.00 | -1.00 | – |' in printed
    runs = json.loads((tmp_path / 'all.json').read_text())
    gains = {run['method']: run['gain'] for run in runs}
    assert gains.pop('gckd_small_memory') == 1.5
    assert gains == {'a': -3.0, 'b': 1.0, 'c': 5.0, 'd': 9.0}
    assert {(run['source'], run['target']) for run in runs} == {('street', 'mall')}

    # What was written stays when the work dirs are gone.
    places[1] = str(tmp_path / 'gone')
    assert signals.main(['--worlds', '0', *places]) == 0
    assert '5 runs' in capsys.readouterr().out


def test_a_run_is_compared_with_the_model_that_it_started_from(
    signals: ModuleType, tmp_path: Path
) -> None:
    world = tmp_path / 'world0'
    write_run(world / 'source_only_street2mall', 40.0)
    write_run(world / 'source_only_scratch_street2mall', 10.0)
    for name in ('gckd', 'gckd_scratch'):
        looks = look(400, 0.0, 0.0), look(700, 1.0, 1.0)
        write_run(world / f'{name}_street2mall', 30.0, *looks)
    runs = signals.runs_below(tmp_path, [0])
    gains = {run['method']: run['gain'] for run in runs}
    assert gains == {'gckd': -10.0, 'gckd_scratch': 20.0}


def test_what_repeats_a_run_or_only_looks_at_it_is_left_out(
    signals: ModuleType, tmp_path: Path
) -> None:
    world = tmp_path / 'world0'
    write_run(world / 'source_only_street2mall', 40.0)
    looks = look(400, 0.0, 0.0), look(700, 1.0, 1.0)
    for name in ('mmd_street2mall', 'mmd-trial3_street2mall', 'mmd_street2mall_probed'):
        write_run(world / name, 45.0, *looks)
    runs = signals.runs_below(tmp_path, [0])
    assert [run['method'] for run in runs] == ['mmd-trial3', 'mmd']
    assert len(signals.without_repetitions(runs)) == 1


def test_runs_of_another_seed_are_others(signals: ModuleType, tmp_path: Path) -> None:
    looks = look(400, 0.0, 0.0), look(700, 1.0, 1.0)
    for folder, score in (('world1', 45.0), ('world1_seed3', 47.0), ('world10', 9.0)):
        write_run(tmp_path / folder / 'source_only_street2mall', 40.0)
        write_run(tmp_path / folder / 'mmd_street2mall', score, *looks)
    runs = signals.runs_below(tmp_path, [1])
    assert {signals.key_of(run)[3:]: run['gain'] for run in runs} == {
        (1, 0): 5.0,
        (1, 3): 7.0,
    }


def test_a_method_of_several_runs_is_looked_at_alone(signals: ModuleType) -> None:
    def run(method: str, world: int, move: float, gain: float) -> dict:
        ends = {'source': 'street', 'target': 'mall', 'world': world, 'seed': 0}
        looks = {'start': {'cycle_rate': 0.25}, 'end': {'cycle_rate': 0.25 + move}}
        return {'method': method, **ends, 'gain': gain, **looks}

    # the better method moves more; within each it is the other way round
    runs = [run('a', world, 0.1 + world / 100, 5.0 - world) for world in range(6)]
    runs += [run('b', world, 0.5 + world / 100, 20.0 - world) for world in range(6)]
    runs.append(run('once', 0, 0.25, 10.0))
    assert signals.lines_by_method(runs)[2:] == [
        '| a | 6 | +0.125 | +2.5 | -1.00 |',
        '| b | 6 | +0.525 | +17.5 | -1.00 |',
    ]
    over_all, _, within = signals.correlations(runs)['cycle_rate']
    assert within < 0 < over_all


def test_development_and_reported_worlds_do_not_share_a_table(
    signals: ModuleType, tmp_path: Path
) -> None:
    places = ['--runs', str(tmp_path), '--results', str(tmp_path / 'all.json')]
    with pytest.raises(SystemExit):
        signals.main(['--worlds', '2', '10', *places])


def test_too_few_runs_say_nothing(signals: ModuleType, tmp_path: Path) -> None:
    places = ['--runs', str(tmp_path), '--results', str(tmp_path / 'all.json')]
    assert signals.main(places) == 1
