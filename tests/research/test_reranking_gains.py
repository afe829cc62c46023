"""What re-ranking gains, on random embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.config import Config

from gckd_mm.evaluation import rank_metrics
from gckd_mm.evaluation.gallery_reranking import build_reranker, rerank_with_gallery
from tests.evaluation.galleries import searched


@pytest.fixture
def reranking(research_script: Callable[[str], ModuleType]) -> ModuleType:
    return research_script('reranking_gains')


@pytest.fixture
def embedded(
    reranking: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Config, str]]:
    """Replace the test by one that dumps; list its configs and checkpoints."""
    calls = []

    def run_tool(name: str, config: Path, weights: str, *options: object) -> None:
        assert name == 'test'
        cfg = Config.fromfile(config)
        calls.append((cfg, weights))
        (target,) = cfg.test_dataloader
        torch.manual_seed(len(calls))
        case = searched(80, 40, 5)
        arrays = {
            f'{target}/images/feats': case.gallery.numpy(),
            f'{target}/images/pids': np.arange(80) // 4,
            f'{target}/captions/feats': case.queries.numpy(),
            f'{target}/captions/pids': np.arange(40) % 20,
        }
        np.savez(Path(str(options[options.index('--dump') + 1])), **arrays)

    monkeypatch.setattr(reranking, 'run_tool', run_tool)
    return calls


def write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / 'iter_1.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_1.pth'))


def options_of(tmp_path: Path, methods: str, *more: str) -> list[str]:
    places = {name: tmp_path / name for name in ('data', 'runs', 'embeddings')}
    named = [part for name, path in places.items() for part in (f'--{name}', str(path))]
    where = ['--worlds', '1', '--directions', 'street2mall', 'mall2street']
    return ['--methods', *methods.split(), *named, *where, *more]


def test_gains_are_those_of_the_metrics(
    reranking: ModuleType,
    embedded: list,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ('source_street', 'gckd_mall2street', 'gckd-trial3_street2mall'):
        write_run(tmp_path / 'runs/world1' / name)
    report = tmp_path / 'report.json'
    options = options_of(tmp_path, 'source_only gckd gckd-trial3')
    options += ['--json', str(report)]

    assert reranking.main(options) == 0

    printed = capsys.readouterr().out
    assert 'gckd street → mall, world 1: no checkpoint in gckd_street2mall' in printed
    rows = json.loads(report.read_text())['figures']['gains']
    runs = {(row['model'], row['source'], row['target']) for row in rows}
    assert runs == {
        ('source_only', 'street', 'mall'),
        ('gckd', 'street', 'mall'),
        ('gckd', 'mall', 'street'),
    }
    assert len(rows) == 3 * len(reranking.VARIANTS)
    dumped = tmp_path / 'embeddings/world1/gckd_mall2street/embeddings.npz'
    arrays = np.load(dumped)
    feats = [arrays[f'street/{part}/feats'] for part in ('captions', 'images')]
    pids = [arrays[f'street/{part}/pids'] for part in ('captions', 'images')]
    order = rerank_with_gallery(build_reranker('propagation'), *feats, top=128)
    plain, found = (
        rank_metrics(*feats, *pids),
        rank_metrics(*feats, *pids, shortlist=order),
    )
    (row,) = [
        row
        for row in rows
        if (row['variant'], row['source']) == ('propagation', 'mall')
    ]
    for name in ('R1', 'mAP', 'mINP'):
        assert row[name] == plain[name]
        assert row[f'{name}_gain'] == found[name] - plain[name]
    assert row['mAP_gain'] != 0
    lowest = min(r['R1_gain'] for r in rows if r['variant'] == 'propagation')
    last = printed.rstrip().splitlines()[-1]
    assert last.startswith('| all | lowest | 3 |')
    assert f'| {lowest:+.1f} / ' in last

    # The model that is tested is that of the method, on this world.
    weights = [weights for _, weights in embedded]
    assert [Path(path).parent.name for path in weights] == [
        'source_street',
        'gckd-trial3_street2mall',
        'gckd_mall2street',
    ]
    cfg, _ = embedded[-1]
    assert cfg.model.type == 'GCKD'
    root = cfg.test_dataloader.street.gallery.dataset.data_root
    assert root == str(tmp_path / 'data/world1/street')
    # What is embedded is kept.
    assert reranking.main(options) == 0
    assert len(embedded) == 3


def test_trials_compare_settings(
    reranking: ModuleType,
    embedded: list,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / 'runs/world1/source_street')

    reranking.main(options_of(tmp_path, 'source_only', '--trials'))

    printed = capsys.readouterr().out
    assert '| k_reciprocal (k1=20, k2=6) | ' in printed
    assert printed.count('\n| propagation') == 8


def test_an_unknown_method_is_named(
    reranking: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        reranking.main(['--methods', 'magic-trial1'])
    assert 'magic-trial1 is not one of source_only' in capsys.readouterr().err
