"""tools/test.py --rerank: a row and metrics of its own, beside the plain ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.evaluation import rank_metrics
from gckd_mm.evaluation.gallery_reranking import build_reranker, rerank_with_gallery
from tests.training import last_checkpoint, small_gckd_config
from tools import test as test_tool

MATCHING = dict(
    type='ImageTextMatchingHead',
    image_channels=16,
    caption_channels=16,
    channels=8,
    num_heads=2,
    grid=(2, 1),
)
NAMES = ('R1', 'R5', 'R10', 'mAP', 'mINP')


@pytest.fixture(scope='module')
def checkpoint(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a matching head, as a checkpoint with its config."""
    folder = tmp_path_factory.mktemp('matching')
    options = dict(model__type='GCKDWithMatching', model__matching=MATCHING)
    cfg = small_gckd_config(miniature, folder, **options)
    torch.manual_seed(0)
    model = Runner.from_cfg(cfg).model
    model.data_preprocessor.tokenizer.fit(['a person in a red coat and black jeans'])
    with torch.no_grad():
        model.matching.classifier.weight.mul_(20)  # else all logits are about equal
    path = folder / 'model.pth'
    meta = {'cfg': cfg.pretty_text}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


def test_reranked_scores_stand_beside_the_plain_ones(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, dump = tmp_path / 'results.json', tmp_path / 'embeddings.npz'
    options = ['--work-dir', str(tmp_path / 'work'), '--out', str(out)]
    options += ['--rerank', '3', '--rerank-weight', '0.5', '--dump', str(dump)]
    test_tool.main([str(checkpoint), *options])

    results, arrays = json.loads(out.read_text()), np.load(dump)
    rows = {
        line.split('  ')[1].strip(): line.split()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('  ')
    }
    assert results['rerank'] == {'method': 'matching', 'top': 3, 'weight': 0.5}
    assert {name.split('/')[-1] for name in arrays} == {'feats', 'pids', 'indices'}
    for test_set, found in results['metrics'].items():
        plain = rank_metrics(
            *(arrays[f'{test_set}/{m}/feats'] for m in ('captions', 'images')),
            *(arrays[f'{test_set}/{m}/pids'] for m in ('captions', 'images')),
        )
        assert {name: found[name] for name in plain} == plain
        assert set(found) - set(plain) == {f'reranked_{name}' for name in NAMES}
        scores = [f'{found[name]:.2f}' for name in NAMES]
        reranked = [f'{found[f"reranked_{name}"]:.2f}' for name in NAMES]
        assert reranked != scores
        queries = [str(found['num_queries']), str(found['num_unmatched'])]
        assert rows[test_set] == [test_set, *scores, *queries]
        assert rows[f'{test_set} (re-ranked)'] == [
            *f'{test_set} (re-ranked)'.split(),
            *reranked,
            *queries,
        ]


@pytest.mark.parametrize('method', ['k_reciprocal', 'propagation'])
def test_a_gallery_reranks_for_a_model_without_a_matching_head(
    trained: Path, tmp_path: Path, method: str
) -> None:
    out, dump = tmp_path / 'results.json', tmp_path / 'embeddings.npz'
    options = ['--work-dir', str(tmp_path / 'work'), '--out', str(out)]
    options += ['--rerank', '5', '--rerank-method', method, '--dump', str(dump)]
    test_tool.main([str(last_checkpoint(trained)), *options])

    results, arrays = json.loads(out.read_text()), np.load(dump)
    assert results['rerank'] == {'method': method, 'top': 5}
    for test_set, found in results['metrics'].items():
        feats = [arrays[f'{test_set}/{m}/feats'] for m in ('captions', 'images')]
        pids = [arrays[f'{test_set}/{m}/pids'] for m in ('captions', 'images')]
        order = rerank_with_gallery(build_reranker(method), *feats, top=5)
        expected = rank_metrics(*feats, *pids, shortlist=order)
        assert {name: found[f'reranked_{name}'] for name in NAMES} == {
            name: expected[name] for name in NAMES
        }


def test_a_table_of_plain_scores_has_no_other_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    test_tool.print_table({'mall': {'R1': 50.0, 'num_queries': 4}}, 'title')
    assert 're-ranked' not in capsys.readouterr().out


def test_every_metric_of_the_test_reranks(checkpoint: Path, tmp_path: Path) -> None:
    loaded = read_checkpoint(checkpoint)
    options = ['--work-dir', str(tmp_path), '--rerank', '7']
    arguments = test_tool.parse_arguments([str(checkpoint), *options])
    expected = {'method': 'matching', 'top': 7, 'weight': 1.0}
    cfg = test_tool.make_config(arguments, loaded)
    assert cfg.test_evaluator.rerank == expected
    cfg.test_evaluator = [
        {'type': 'PersonRetrievalMetric'},
        {'type': 'gckd_mm.PersonRetrievalMetric', 'prefix': 'propagated'},
        {'type': 'SomebodyElsesMetric'},
    ]
    test_tool.rerank_with(cfg, expected)
    found = [metric.get('rerank') for metric in cfg.test_evaluator]
    assert found == [expected, expected, None]


def test_a_head_that_nobody_has_trained_yet(checkpoint: Path, tmp_path: Path) -> None:
    loaded = read_checkpoint(checkpoint)
    loaded['meta']['adaptation_steps'] = 0
    options = ['--work-dir', str(tmp_path), '--rerank', '7']
    arguments = test_tool.parse_arguments([str(checkpoint), *options])
    with pytest.raises(InputError, match='matching head is not trained'):
        test_tool.make_config(arguments, loaded)
    arguments.rerank_method = 'propagation'
    assert test_tool.make_config(arguments, loaded).test_evaluator.rerank['top'] == 7


def test_what_cannot_be_reranked(
    checkpoint: Path, trained: Path, tmp_path: Path
) -> None:
    options = ['--work-dir', str(tmp_path)]
    with pytest.raises(SystemExit, match='top of at least 1'):
        test_tool.main([str(checkpoint), *options, '--rerank', '0'])
    plain = str(last_checkpoint(trained))
    with pytest.raises(SystemExit, match='needs a model with a matching head'):
        test_tool.main([plain, *options, '--rerank', '3'])
