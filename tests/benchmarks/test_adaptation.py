"""The benchmark of the adaptation, with tools that only pretend to train."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCORES = {'source_only': 40.0, 'gckd': 52.0, 'cmkd': 47.0, 'oracle': 70.0}


@pytest.fixture
def adaptation(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script('adaptation')


@pytest.fixture
def started(
    adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str, Config, list[str]]]:
    """Replace the tools; list what they were started with: tool, folder, config, …"""
    calls = []

    def run_tool(
        name: str, cfg: Config, folder: Path, place: Any, arguments: list[object]
    ) -> tuple[float, float]:
        calls.append((name, folder.name, cfg, [str(each) for each in arguments]))
        folder.mkdir(parents=True, exist_ok=True)
        if name == 'train':
            (folder / 'iter_1.pth').touch()
            (folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))
        else:
            method = folder.name.rpartition('_')[0].removesuffix('_scratch')
            domain = folder.name.rpartition('2')[2]
            scores = dict.fromkeys(('R1', 'R5', 'R10', 'mAP', 'mINP'), SCORES[method])
            report = {'metrics': {domain: scores}}
            Path(str(arguments[-1])).write_text(json.dumps(report))
        return 12.34, 567.8

    monkeypatch.setattr('adaptation_cell._run_tool', run_tool)
    monkeypatch.setattr(adaptation, 'write_domain', lambda domain, path: None)
    return calls


def options_of(tmp_path: Path, methods: str, *more: str) -> list[str]:
    places = {name: tmp_path / name for name in ('results', 'data', 'runs')}
    named = [part for name, path in places.items() for part in (f'--{name}', str(path))]
    return ['--methods', *methods.split(), '--jobs', '1', *named, *more]


def test_rows_are_made_kept_and_never_made_again(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ['--worlds', '10', '--directions', 'street2mall', 'mall2street']
    place = '<!-- adaptation -->\nOld.\n<!-- end of adaptation -->'
    (tmp_path / 'RESULTS.md').write_text(f'# Results\n\n{place}\n\nThe end.\n')

    assert adaptation.main(options_of(tmp_path, 'source_only gckd', *where)) == 0

    rows = json.loads((tmp_path / 'results/adaptation.json').read_text())
    assert [(r['method'], r['source'], r['R1']) for r in rows] == [
        ('source_only', 'street', 40.0),
        ('gckd', 'street', 52.0),
        ('source_only', 'mall', 40.0),
        ('gckd', 'mall', 52.0),
    ]
    for row in rows:
        assert (row['seed'], row['world']) == (10, 10)
        assert (row['train_seconds'], row['peak_memory_mb']) == (12.3, 568)
    # one source stage for each source, one adaptation and two tests a direction
    assert [name for name, *_ in started].count('train') == 4
    line = '| gckd | 52.0 | 52.0 | 2 | +12.0 (+12.0) | – |'
    assert line in capsys.readouterr().out
    document = (tmp_path / 'RESULTS.md').read_text()
    assert document.startswith('# Results\n\n<!-- adaptation -->\n\n| Rank-1 |')
    assert line in document
    assert document.endswith('\n\n<!-- end of adaptation -->\n\nThe end.\n')
    assert 'Old' not in document
    with Image.open(tmp_path / 'results/adaptation.png') as picture:
        assert min(picture.size) > 300

    del started[:]
    assert adaptation.main(options_of(tmp_path, 'source_only gckd', *where)) == 0
    assert started == []


def test_a_method_branches_off_the_source_stage_with_its_seed_and_data(
    adaptation: ModuleType, started: list, tmp_path: Path
) -> None:
    where = ['--worlds', '2', '--directions', 'mall2campus']
    adaptation.main(options_of(tmp_path, 'gckd', *where))

    (_, stage, stage_cfg, first), (_, _, cfg, second), (_, _, tested, _) = started
    assert stage == 'source_mall'
    assert first == ['--seed', '0']
    weights = tmp_path / 'runs/world2/source_mall/iter_1.pth'
    assert second == ['--seed', '0', '--source-checkpoint', str(weights)]
    assert cfg.model.type == 'GCKD'
    root = tmp_path / 'data/world2'
    assert stage_cfg.train_dataloader.dataset.data_root == str(root / 'mall')
    dataset = cfg.train_dataloader.dataset
    assert dataset.source.data_root == str(root / 'mall')
    assert dataset.target.data_root == str(root / 'campus')
    assert list(tested.test_dataloader) == ['campus']
    test_set = tested.test_dataloader.campus.query.dataset
    assert test_set.data_root == str(root / 'campus')
    assert (tmp_path / 'results/adaptation_development.json').exists()


def test_the_oracle_of_a_pair_is_trained_once_and_tested_on_both(
    adaptation: ModuleType, started: list, tmp_path: Path
) -> None:
    where = ['--worlds', '10', '--directions', 'street2mall', 'mall2street']

    assert adaptation.main(options_of(tmp_path, 'oracle', *where)) == 0

    ((_, folder, cfg, arguments),) = [each for each in started if each[0] == 'train']
    assert folder == 'oracle_mall_street'
    assert arguments == ['--seed', '10']
    roots = [Path(part.data_root) for part in cfg.train_dataloader.dataset.datasets]
    assert [root.name for root in roots] == ['mall', 'street']
    tests = [each for each in started if each[0] == 'test']
    assert [list(each[2].test_dataloader) for each in tests] == [['mall'], ['street']]
    weights = str(tmp_path / 'runs/world10/oracle_mall_street/iter_1.pth')
    assert all(weights in each[3] for each in tests)
    rows = json.loads((tmp_path / 'results/adaptation.json').read_text())
    assert [row['target'] for row in rows] == ['mall', 'street']


def test_a_start_without_pretraining_is_a_source_stage_of_its_own(
    adaptation: ModuleType, started: list, tmp_path: Path
) -> None:
    methods = 'source_only source_only_scratch gckd_scratch'
    where = ['--worlds', '0', '--directions', 'street2mall']

    assert adaptation.main(options_of(tmp_path, methods, *where)) == 0

    trained = {
        name: (cfg, given) for tool, name, cfg, given in started if tool == 'train'
    }
    assert sorted(trained) == [
        'gckd_scratch_street2mall',
        'scratch_street',
        'source_street',
    ]
    assert trained['source_street'][0].load_from is not None
    assert trained['scratch_street'][0].load_from is None
    weights = tmp_path / 'runs/world0/scratch_street/iter_1.pth'
    assert str(weights) in trained['gckd_scratch_street2mall'][1]


def test_a_cell_that_fails_leaves_the_others_alone(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = adaptation.Cell.row

    def fail_once(cell: Any) -> dict[str, Any]:
        if cell.name == 'cmkd':
            raise RuntimeError('train failed (1): see train.log')
        return row(cell)

    monkeypatch.setattr(adaptation.Cell, 'row', fail_once)
    where = ['--worlds', '11', '--directions', 'street2mall']

    assert adaptation.main(options_of(tmp_path, 'cmkd gckd', *where)) == 1

    assert 'cmkd street → mall, world 11: train failed' in capsys.readouterr().out
    rows = json.loads((tmp_path / 'results/adaptation.json').read_text())
    assert [each['method'] for each in rows] == ['gckd']


def test_a_source_stage_that_fails_is_not_tried_again_by_each_cell(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = []

    def fail(name: str, cfg: Config, folder: Path, *rest: Any) -> tuple[float, float]:
        tried.append(folder.name)
        raise RuntimeError('train failed (1)')

    monkeypatch.setattr('adaptation_cell._run_tool', fail)
    where = ['--worlds', '11', '--directions', 'street2mall']

    assert adaptation.main(options_of(tmp_path, 'cmkd gckd', *where)) == 1

    assert tried == ['source_street']
    assert capsys.readouterr().out.count('train failed (1)') == 2


def test_what_came_from_weights_that_were_replaced_is_not_taken_for_new(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = options_of(tmp_path, 'source_only gckd', '--worlds', '0')
    arguments += ['--directions', 'street2mall']
    assert adaptation.main(arguments) == 0
    runs = tmp_path / 'runs/world0'
    shutil.rmtree(runs / 'source_street')
    (tmp_path / 'results/adaptation_development.json').unlink()
    os.utime(runs / 'source_only_street2mall/results.json', (0, 0))
    del started[:]
    trained = adaptation.Cell._train

    def train_otherwise(cell: Any, method: Any, folder: Path, start: Any) -> Any:
        run = trained(cell, method, folder, start)
        (run.folder / 'iter_1.pth').write_text('other weights')
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation.Cell, '_train', train_otherwise)
        assert adaptation.main(arguments) == 1

    assert 'or from other weights: delete it' in capsys.readouterr().out
    # the stage and its test are made anew, and nothing else
    assert [(tool, name) for tool, name, *_ in started] == [
        ('train', 'source_street'),
        ('test', 'source_only_street2mall'),
    ]


def test_a_run_that_does_not_say_where_it_started_is_refused(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = options_of(tmp_path, 'source_only', '--worlds', '0')
    arguments += ['--directions', 'street2mall']
    assert adaptation.main(arguments) == 0
    (tmp_path / 'results/adaptation_development.json').unlink()
    record = tmp_path / 'runs/world0/source_street/run.json'
    said = json.loads(record.read_text())
    del said['start']
    record.write_text(json.dumps(said))

    assert adaptation.main(arguments) == 1

    assert 'delete it to train anew' in capsys.readouterr().out


def test_a_run_of_other_settings_is_not_taken_for_this_one(
    adaptation: ModuleType,
    started: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ['--worlds', '0', '--directions', 'street2mall']
    arguments = options_of(tmp_path, 'gckd', *where)
    assert adaptation.main(arguments) == 0
    (tmp_path / 'results/adaptation_development.json').unlink()
    changed = adaptation.Method('gckd_street2mall', {'model.teacher_momentum': 0.5})
    monkeypatch.setitem(adaptation.METHODS, 'gckd', changed)

    assert adaptation.main(arguments) == 1

    assert 'was trained with other settings' in capsys.readouterr().out
    assert not (tmp_path / 'results/adaptation_development.json').exists()


def test_the_rows_of_the_repository_can_be_read_and_shown(
    adaptation: ModuleType,
) -> None:
    for worlds in ([0, 1, 2], [10]):
        rows = adaptation.rows_of(worlds, adaptation.RESULTS).read()
        assert adaptation.table(rows, list(adaptation.METHODS))


def test_development_and_reported_worlds_do_not_share_a_table(
    adaptation: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match='different tables'):
        adaptation.main(options_of(tmp_path, 'gckd', '--worlds', '2', '10'))


def test_every_method_is_a_config_that_reads(adaptation: ModuleType) -> None:
    for name, method in adaptation.METHODS.items():
        cfg = Config.fromfile(ROOT / f'configs/{method.config}.py')
        cfg.merge_from_dict(dict(method.options))
        adapts = 'AdaptationHook' in str(cfg.default_hooks)
        assert adapts == (method.start is not None), name


def test_the_table_shows_means_spreads_and_paired_gains(
    adaptation: ModuleType,
) -> None:
    def row(method: str, world: int, score: float, target: str = 'mall') -> dict:
        scores = dict.fromkeys(('R1', 'R5', 'R10', 'mAP', 'mINP'), score)
        costs = {'train_seconds': 10.0, 'peak_memory_mb': 5}
        ends = {'source': 'street', 'target': target}
        return {'method': method, 'world': world, **ends, **scores, **costs}

    rows = [
        row('source_only', 10, 30.0),
        row('source_only', 11, 40.0),
        row('source_only', 10, 20.0, 'campus'),
        row('continued', 10, 40.0),
        row('gckd', 10, 45.0),
        row('gckd', 11, 47.0),
    ]

    lines = adaptation.table(rows, ['gckd', 'source_only', 'oracle', 'mmd'])

    header = (
        'street → mall | street → campus | cells | gain (lowest) | over continued |'
    )
    assert lines[0] == f'| Rank-1 | {header}'
    # gains over the cells that both have: 15 and 7, and 5
    assert lines[2] == '| gckd | 46.0 ± 1.4 | – | 2 | +11.0 (+7.0) | +5.0 (+5.0) |'
    assert lines[3].startswith('| source_only | 35.0 ± 7.1 | 20.0 | 3 | +0.0 (+0.0) |')
    # GCKD's lead, in each direction and in all
    assert lines[5] == '| GCKD over | street → mall | street → campus | all |'
    assert lines[7] == '| source_only | +11.0 (+7.0) | – | +11.0 (+7.0) |'
    assert lines[9] == '| method | R1 | R5 | R10 | mAP | mINP | train s | peak MB |'
    assert lines[11] == '| gckd | 46.0 | 46.0 | 46.0 | 46.0 | 46.0 | 10 | 5 |'
    untimed = adaptation.table(rows, ['gckd'], seconds=False)
    assert untimed[-1] == '| gckd | 46.0 | 46.0 | 46.0 | 46.0 | 46.0 | 5 |'


def test_the_summary_is_that_of_the_readme(adaptation: ModuleType) -> None:
    rows = adaptation.rows_of([10], adaptation.RESULTS).read()
    lines = adaptation.summary(rows, adaptation.MAIN)
    readme = (ROOT / 'README.md').read_text()
    assert '\n'.join(lines) in readme, 'run benchmarks/adaptation.py --worlds 10 11 12'


def test_the_summary_is_over_the_cells_that_all_methods_have(
    adaptation: ModuleType,
) -> None:
    def row(method: str, world: int, score: float) -> dict:
        scores = dict.fromkeys(('R1', 'R5', 'R10', 'mAP', 'mINP'), score)
        ends = {'source': 'street', 'target': 'mall'}
        return {'method': method, 'world': world, **ends, **scores}

    rows = [
        row('source_only', 10, 30.0),
        row('source_only', 11, 40.0),
        row('source_only', 12, 90.0),
        row('gckd', 10, 45.0),
        row('gckd', 11, 51.0),
        row('coral', 12, 91.0),
    ]
    names = {'source_only': 'alone', 'oracle': 'labels', 'gckd': '**GCKD**'}
    assert adaptation.summary(rows, names)[0].startswith('| 2 cells | Rank-1 |')
    assert adaptation.summary(rows, names)[2:] == [
        '| alone | 35.0 | – | 35.0 | 35.0 |',
        '| **GCKD** | 48.0 | +13.0 (+11.0) | 48.0 | 48.0 |',
    ]


def test_a_document_without_the_place_is_left_alone(
    adaptation: ModuleType, tmp_path: Path
) -> None:
    document = adaptation.document_beside(tmp_path / 'results/adaptation.json')
    assert document == tmp_path / 'RESULTS.md'
    adaptation.write_into_document(document, 'adaptation', ['a', 'b'])
    assert not document.exists()
    document.write_text('<!-- adaptation -->\nno end')
    adaptation.write_into_document(document, 'adaptation', ['a', 'b'])
    assert document.read_text() == '<!-- adaptation -->\nno end'
