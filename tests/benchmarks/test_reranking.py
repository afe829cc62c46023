"""What re-ranking costs, on random galleries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gckd_mm.evaluation.gallery_reranking import build_reranker, rerank_with_gallery
from tests.evaluation.galleries import searched


@pytest.fixture
def reranking(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script('reranking')


def test_candidates_alone_are_what_a_search_has(reranking: ModuleType) -> None:
    case = searched(80, 10, 5)
    queries, gallery = case.queries.numpy(), case.gallery.numpy()
    all_of_them = reranking.Variant('propagation', {'k': 2}, candidates=80)

    order = all_of_them.order(queries, gallery)

    reranker = build_reranker('propagation', k=2)
    assert (order == rerank_with_gallery(reranker, queries, gallery, 80)).all()
    assert str(all_of_them) == 'propagation (k=2), of 80 candidates'


def test_costs_are_measured(
    reranking: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [
        reranking.Variant('k_reciprocal'),
        reranking.Variant('propagation', candidates=20),
    ]
    monkeypatch.setattr(reranking, 'VARIANTS', few)
    report = tmp_path / 'report.json'
    options = ['--sizes', '300', '--queries', '8', '--repeats', '1']

    assert reranking.main([*options, '--json', str(report)]) == 0

    whole, local = json.loads(report.read_text())['figures']['costs']
    assert whole['gallery_seconds'] > 0
    assert local['gallery_seconds'] is None
    for row in (whole, local):
        assert row['images'] == 300
        assert row['query_ms'] > 0
        assert row['peak_extra_mb'] >= 0
    assert '| propagation, of 20 candidates | 300 | – | ' in capsys.readouterr().out
