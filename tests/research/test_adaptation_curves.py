"""Curves of retrieval during the adaptation: what is looked at, and what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image


@pytest.fixture
def curves(
    research_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    script = research_script('adaptation_curves')
    monkeypatch.setattr('adaptation.write_domain', lambda domain, path: None)
    return script


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    """Replace the tools; give the configs by folder of training."""
    configs = {}

    def run_tool(
        name: str, cfg: Config, folder: Path, place: Any, arguments: list[object]
    ) -> tuple[float, float]:
        folder.mkdir(parents=True, exist_ok=True)
        if name == 'test':
            metrics = dict.fromkeys(('R1', 'R5', 'R10', 'mAP', 'mINP'), 50.0)
            report = {'metrics': {folder.name.split('_')[-2].split('2')[1]: metrics}}
            Path(str(arguments[-1])).write_text(json.dumps(report))
            return 1.0, 1.0
        configs[folder.name] = cfg
        (folder / 'iter_1.pth').touch()
        (folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))
        log = folder / '20260101_000000/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        lines = [
            {'probe/target/R1': 50.0, 'probe/source/R1': 61.234, 'step': 450},
            {'loss': 3.0, 'step': 400},
            {'probe/target/R1': 40.0, 'probe/source/R1': 60.0, 'step': 400},
        ]
        log.write_text('\n'.join(json.dumps(line) for line in lines))
        return 1.0, 1.0

    monkeypatch.setattr('adaptation_run._run_tool', run_tool)
    return configs


def test_runs_are_probed_and_their_curves_kept_and_drawn(
    curves: ModuleType,
    started: dict[str, Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tmp_path / 'curves.json'
    arguments = ['--methods', 'gckd', 'continued', '--rows', str(rows), '--jobs', '1']
    arguments += ['--data', str(tmp_path / 'data'), '--runs', str(tmp_path / 'runs')]

    assert curves.main(arguments) == 0

    # the run that tables are made of is another one; the source stage is shared
    assert set(started) == {
        'source_street',
        'gckd_street2mall_probed',
        'continued_street2mall_probed',
    }
    assert 'TargetProbeHook' not in str(started['source_street'])
    (probe,) = [
        hook
        for hook in started['gckd_street2mall_probed'].custom_hooks
        if hook['type'] == 'TargetProbeHook'
    ]
    target, source = (probe['test_sets'][end].query for end in ('target', 'source'))
    assert target.dataset.data_root == str(tmp_path / 'data/world0/mall')
    assert target.dataset.split == 'test'
    assert source.dataset.data_root == str(tmp_path / 'data/world0/street')
    assert source.dataset.split == 'val'
    assert target.num_workers == 0
    first, _ = json.loads(rows.read_text())
    assert first['iterations'] == [400, 450]
    assert first['target_R1'] == [40.0, 50.0]
    assert first['source_R1'] == [60.0, 61.23]
    expected = '| street → mall | gckd | 40.0 → 50.0 | 60.0 → 61.2 |'
    assert expected in capsys.readouterr().out
    with Image.open(rows.with_suffix('.png')) as picture:
        assert min(picture.size) > 300

    started.clear()
    assert curves.main(arguments) == 0
    assert not started


def test_a_source_without_a_validation_split_shows_its_test_split(
    curves: ModuleType, started: dict[str, Config], tmp_path: Path
) -> None:
    arguments = ['--methods', 'continued', '--directions', 'campus2street']
    arguments += ['--rows', str(tmp_path / 'curves.json'), '--jobs', '1']
    arguments += ['--data', str(tmp_path / 'data'), '--runs', str(tmp_path / 'runs')]

    assert curves.main(arguments) == 0

    probe = started['continued_campus2street_probed'].custom_hooks[-2]
    assert probe['test_sets']['source'].query.dataset.split == 'test'
