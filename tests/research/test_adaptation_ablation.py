from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def ablation(research_script: Callable[[str], ModuleType]) -> ModuleType:
    return research_script('adaptation_ablation')


def row(method: str, score: float, source: str, world: int = 0) -> dict:
    ends = {'source': source, 'target': 'mall' if source == 'street' else 'street'}
    return {'method': method, 'R1': score, 'world': world, 'seed': 0, **ends}


def test_parts_are_methods(ablation: ModuleType) -> None:
    assert set(ablation.PARTS) <= set(ablation.METHODS)


def test_the_document_has_the_table_of_the_rows_that_are_there(
    ablation: ModuleType,
) -> None:
    rows = ablation.rows_of([0], ablation.RESULTS).read()
    shown = ablation.rows_shown(rows)
    document = (ablation.ROOT / 'docs/method.md').read_text()
    assert '\n'.join(ablation.table(shown)) in document


def test_a_part_is_compared_with_the_source_and_with_the_whole(
    ablation: ModuleType,
) -> None:
    rows = [
        row('gckd', 60.0, 'street'),
        row('gckd', 70.0, 'mall'),
        row('source_only', 40.0, 'street'),
        row('source_only', 45.0, 'mall'),
        row('without_graph', 51.0, 'street'),
        row('without_graph', 65.0, 'mall'),
        row('source_only_scratch', 10.0, 'street'),
        row('gckd_scratch', 12.5, 'street'),
    ]

    lines = ablation.table(rows)

    assert lines[0] == (
        '|  | street → mall | mall → street | over source-only | over GCKD |'
    )
    assert lines[2:] == [
        '| the source alone | 40.0 | 45.0 | – | -22.5 (-25.0) |',
        '| **GCKD** | 60.0 | 70.0 | +22.5 (+20.0) | – |',
        f'| {ablation.PARTS["without_graph"]} | 51.0 | 65.0 | +15.5 (+11.0) '
        '| -7.0 (-9.0) |',
        f'| {ablation.PARTS["source_only_scratch"]} | 10.0 | – | – | -50.0 (-50.0) |',
        f'| {ablation.PARTS["gckd_scratch"]} | 12.5 | – | +2.5 (+2.5) '
        '| -47.5 (-47.5) |',
    ]


def test_rows_that_are_there_are_shown_and_other_runs_left_out(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ablation.rows_of([0], tmp_path)
    for each in (
        row('gckd', 60.0, 'street'),
        row('gckd', 90.0, 'street', world=1),
        row('gckd', 70.0, 'mall'),
        row('gmp', 50.0, 'street'),
        row('gmp', 62.0, 'mall'),
    ):
        rows.add(each)
    options = ['--results', str(tmp_path), '--runs', str(tmp_path / 'runs')]

    assert ablation.main(['--methods', 'gmp', *options]) == 0

    printed = capsys.readouterr().out
    gmp = ablation.PARTS['gmp']
    assert f'| {gmp} | 50.0 | 62.0 | – | -9.0 (-10.0) |' in printed
    assert '| **GCKD** | 60.0 | 70.0 |' in printed
