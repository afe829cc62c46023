"""Results side by side, and averaged over seeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools import compare_results


def write(path: Path, **metrics: dict[str, float | None]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'metrics': metrics}))
    return str(path)


def write_run(folder: Path, seed: int | None, r1: float, **fields: Any) -> Path:
    """What a test of the run of one seed leaves in its work dir."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        'config': 'configs/gckd_street2mall.py',
        'weights': 'student',
        'selection': 'last',
        'iteration': 400,
        'rerank': None,
        'seed': seed,
        'metrics': {'mall': {'R1': r1, 'mAP': r1 / 2}},
        **fields,
    }
    (folder / 'results.json').write_text(json.dumps(content))
    return folder


def printed_rows(capsys: pytest.CaptureFixture) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_row_for_each_test_set_and_model(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = write(tmp_path / 'a.json', mall={'R1': 40.444, 'mAP': 30.0}, street={'R1': 1})
    two = write(tmp_path / 'run' / 'b.json', mall={'R1': None, 'mAP': 31.0})

    compare_results.main([f'source-only={one}', two])

    rows = printed_rows(capsys)
    assert ['mall', 'source-only', '40.44', '–', '–', '30.00', '–'] in rows
    assert ['mall', 'run', '–', '–', '–', '31.00', '–'] in rows
    assert ['street', 'source-only', '1.00', '–', '–', '–', '–'] in rows
    assert not any(row[:2] == ['street', 'run'] for row in rows)


SCORES = {0: 40.0, 1: 43.5, 2: 41.25}


@pytest.fixture
def seeds(tmp_path: Path) -> list[str]:
    """Work dirs of three seeds, with the logs that training leaves in them."""
    folders = [write_run(tmp_path / f'seed{s}', s, r1) for s, r1 in SCORES.items()]
    for folder in folders:
        (folder / 'vis_data').mkdir()
        (folder / 'vis_data' / 'scalars.json').write_text('{"loss": 1}\n{"loss": 2}\n')
    return [str(folder) for folder in folders]


def test_runs_of_a_config_are_averaged_over_their_seeds(
    tmp_path: Path, seeds: list[str], capsys: pytest.CaptureFixture
) -> None:
    other = write_run(tmp_path / 'other', 0, 30.0, config='configs/cmkd.py')
    values = list(SCORES.values())

    compare_results.main([*seeds, str(other)])

    mean, deviation = f'{np.mean(values):.2f}', f'{np.std(values, ddof=1):.2f}'
    rows = printed_rows(capsys)
    assert ['mall', 'gckd_street2mall', '3', mean, '±', deviation] in [
        row[:6] for row in rows
    ]
    # One run has no deviation.
    assert ['mall', 'cmkd', '1', '30.00', '–', '–', '15.00', '–'] in rows


def test_the_order_of_the_runs_does_not_matter(
    seeds: list[str], capsys: pytest.CaptureFixture
) -> None:
    compare_results.main(seeds)
    forth = capsys.readouterr().out
    compare_results.main(seeds[::-1])

    assert capsys.readouterr().out == forth


def test_markdown_csv_and_json_agree(tmp_path: Path, seeds: list[str]) -> None:
    files = [tmp_path / f'table.{suffix}' for suffix in ('md', 'csv', 'json')]

    compare_results.main([*seeds, '--out', *map(str, files)])

    markdown, comma, tree = (file.read_text() for file in files)
    values = list(SCORES.values())
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    lines = [line.strip('| ').split(' | ') for line in markdown.splitlines()]
    assert len({len(line) for line in lines}) == 1
    assert lines[2][:4] == [
        'mall',
        'gckd_street2mall',
        '3',
        f'{mean:.2f} ± {deviation:.2f}',
    ]
    (row,) = csv.DictReader(io.StringIO(comma))
    assert float(row['R1_mean']) == pytest.approx(mean)
    assert float(row['R1_std']) == pytest.approx(deviation)
    assert (row['R5_mean'], row['runs']) == ('', '3')
    (entry,) = json.loads(tree)
    assert entry['seeds'] == [0, 1, 2]
    assert entry['metrics']['R1']['values'] == values
    assert entry['metrics']['R1']['std'] == pytest.approx(deviation)
    assert entry['metrics']['R5'] == {'values': None, 'mean': None, 'std': None}


def test_the_teacher_is_a_model_of_its_own(
    tmp_path: Path, seeds: list[str], capsys: pytest.CaptureFixture
) -> None:
    teacher = write_run(tmp_path / 'teacher', 0, 50.0, weights='teacher')

    compare_results.main([*seeds, str(teacher)])

    assert 'gckd_street2mall (teacher)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'seed': 1}, r'of seed 1, as .*seed1'),
        ({'seed': None}, 'of seed None'),
        ({'seed': 3, 'iteration': 200}, 'iteration is 200, but 400 in'),
        ({'seed': 3, 'selection': 'best on target'}, "selection is 'best on target'"),
        ({'seed': 3, 'rerank': {'top': 20}}, 'rerank is'),
    ],
)
def test_nothing_but_seeds_is_averaged(
    tmp_path: Path, seeds: list[str], fields: dict[str, Any], message: str
) -> None:
    run = write_run(tmp_path / 'run', **{'r1': 1.0, **fields})

    with pytest.raises(SystemExit, match=message) as stop:
        compare_results.main([*seeds, str(run)])
    assert 'NAME=PATH' in str(stop.value)
    compare_results.main([*seeds, f'other={run}'])


def test_models_of_two_configs_are_not_averaged(
    tmp_path: Path, seeds: list[str]
) -> None:
    run = write_run(tmp_path / 'run', 3, 1.0, config='configs/cmkd.py')

    with pytest.raises(SystemExit, match="config is 'cmkd', but 'gckd_street2mall'"):
        compare_results.main([f'a={seeds[0]}', f'a={run}'])


def test_a_config_is_known_by_any_path_and_a_best_iteration_may_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    best = {'selection': 'best on source'}
    one = write_run(tmp_path / 'one', 0, 1.0, iteration=200, **best)
    path = '/elsewhere/gckd_street2mall.py'
    two = write_run(tmp_path / 'two', 1, 3.0, iteration=400, config=path, **best)

    compare_results.main([str(one), str(two)])

    assert '2.00 ± 1.41' in capsys.readouterr().out


@pytest.mark.parametrize(
    'text', ['{"R1": 1}', 'no json', '[]', '{"metrics": {"R1": 1}}']
)
def test_says_what_is_no_result(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.json').write_text(text)

    with pytest.raises(SystemExit, match=r'x\.json: not what tools/test\.py'):
        compare_results.main([str(tmp_path / 'x.json')])
    with pytest.raises(SystemExit, match=r'none\.json: cannot be read'):
        compare_results.main([str(tmp_path / 'none.json')])
    with pytest.raises(SystemExit, match=r'holds no results, write them with'):
        compare_results.main([str(tmp_path)])


def test_an_unknown_format_is_refused(tmp_path: Path, seeds: list[str]) -> None:
    with pytest.raises(SystemExit, match=r'must end in \.md, \.csv, \.json'):
        compare_results.main([*seeds, '--out', str(tmp_path / 'table.html')])
