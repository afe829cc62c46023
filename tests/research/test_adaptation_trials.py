"""The log of trials: what it counts, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def trials(
    research_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    script = research_script('adaptation_trials')

    def row(run: Any) -> dict[str, Any]:
        score = 40 + float(run.method.options.get('model.labels.candidates', 0))
        ends = {'source': run.source, 'target': run.target}
        return {**ends, 'world': run.world, 'seed': run.seed, 'R1': score}

    monkeypatch.setattr(script.Run, 'row', row)
    monkeypatch.setattr(script.Run, 'train', lambda run: None)
    monkeypatch.setattr(script, 'write_worlds', lambda runs: list(runs))
    return script


def test_a_trial_is_logged_with_its_settings_and_gains(
    trials: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'trials.json'
    settings = ['default', 'model.labels.candidates=3,model.graph=None']

    trials.main(['gckd', *settings, '--trials', str(path), '--worlds', '0', '1'])

    first, second = json.loads(path.read_text())
    assert (first['method'], first['trial'], first['options']) == ('gckd', 1, {})
    assert second['options'] == {
        'model.labels.candidates': 3,
        'model.graph': None,
    }
    assert len(second['runs']) == 4
    assert {run['gain'] for run in second['runs']} == {3.0}
    assert '| gckd | 1 | default | +0.0 |' in capsys.readouterr().out


def test_what_was_tried_is_not_tried_again_and_takes_no_new_number(
    trials: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / 'trials.json'
    for directions in (['street2mall'], ['street2mall', 'mall2campus']):
        arguments = ['gckd', 'default', '--trials', str(path)]
        trials.main([*arguments, '--directions', *directions])

    (trial,) = json.loads(path.read_text())
    assert [run['target'] for run in trial['runs']] == ['mall', 'campus']


def test_with_another_config_the_same_changes_are_another_trial(
    trials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ['--trials', str(tmp_path / 'trials.json'), '--directions', 'street2mall']
    trials.main(['gckd', 'default', *path])
    gckd = trials.METHODS['gckd']
    other = gckd._replace(options={'model.labels.candidates': 7})
    monkeypatch.setitem(trials.METHODS, 'gckd', other)

    trials.main(['gckd', 'default', *path])

    first, second = json.loads((tmp_path / 'trials.json').read_text())
    assert (first['trial'], second['trial']) == (1, 2)
    assert first['settings'] != second['settings']
    assert second['runs'][0]['gain'] == 7.0


def test_a_trial_that_fails_keeps_its_number(
    trials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ['--trials', str(tmp_path / 'trials.json'), '--directions', 'street2mall']
    row = trials.Run.row

    def fail(run: Any) -> dict[str, Any]:
        if 'trial1' in run.name:
            raise RuntimeError('killed')
        return row(run)

    monkeypatch.setattr(trials.Run, 'row', fail)
    trials.main(['gckd', 'default', *path])
    trials.main(['gckd', 'model.labels.candidates=5', *path])

    first, second = json.loads((tmp_path / 'trials.json').read_text())
    assert (first['trial'], first['options'], first['runs']) == (1, {}, [])
    assert (second['trial'], second['runs'][0]['gain']) == (2, 5.0)


@pytest.mark.parametrize(
    ('text', 'options'),
    [
        ('default', {}),
        (
            'a.b=(32,64),c=None,d=sinkhorn',
            {'a.b': (32, 64), 'c': None, 'd': 'sinkhorn'},
        ),
        ('a=1e-3', {'a': 0.001}),
    ],
)
def test_settings_are_read_as_python_has_them(
    trials: ModuleType, text: str, options: dict[str, Any]
) -> None:
    assert trials.parse_options(text) == options


def test_a_setting_without_a_value_is_refused(trials: ModuleType) -> None:
    with pytest.raises(SystemExit, match="'mmd' is no key=value"):
        trials.parse_options('mmd')


def test_a_method_has_eight_trials_and_no_reported_world(
    trials: ModuleType, tmp_path: Path
) -> None:
    path = ['--trials', str(tmp_path / 'trials.json')]
    settings = [f'model.labels.candidates={number}' for number in range(1, 9)]
    trials.main(['gckd', *settings, *path])
    trials.main(['cmkd', 'default', *path])  # has its own count

    with pytest.raises(SystemExit, match='gckd has had its 8 trials'):
        trials.main(['gckd', 'model.labels.candidates=9', *path])
    with pytest.raises(SystemExit):
        trials.main(['gckd', 'default', '--worlds', '10', *path])
