"""Re-ranking with a gallery, and with what a search has found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.evaluation import top_matches
from gckd_mm.evaluation.gallery_reranking import (
    METHODS,
    build_reranker,
    rerank_candidates,
    rerank_with_gallery,
)
from tests.evaluation.galleries import searched

EACH_METHOD = pytest.mark.parametrize('method', METHODS)


@EACH_METHOD
def test_the_first_images_are_sorted_by_their_scores(method: str) -> None:
    case = searched(60, 9, 20)
    queries, gallery = case.queries.numpy(), case.gallery.numpy()
    reranker = build_reranker(method)

    found = rerank_with_gallery(reranker, queries, gallery, 20)

    order, similarity = map(torch.from_numpy, top_matches(queries, gallery, 20))
    scores = reranker.over(case.gallery)(order, similarity)
    for q in range(9):
        of_image = dict(zip(order[q].tolist(), scores[q].tolist(), strict=True))
        expected = sorted(of_image, key=of_image.__getitem__, reverse=True)
        assert found[q].tolist() == expected
    assert (found != order.numpy()).any()


@EACH_METHOD
def test_candidates_are_reranked_as_if_they_were_the_gallery(method: str) -> None:
    case = searched(60, 9, 20)
    for query, found in zip(case.queries, case.order, strict=True):
        candidates = case.gallery[found[torch.randperm(20)]].numpy()

        order, scores = rerank_candidates(query.numpy(), candidates, method, seeds=4)

        expected = rerank_with_gallery(
            build_reranker(method, seeds=4), query.numpy()[None], candidates, 60
        )
        assert order.tolist() == expected[0].tolist()
        assert order.dtype == np.int64
        assert scores.dtype == np.float32
        assert (np.diff(scores) <= 0).all()
        assert scores[0] > scores[-1]


@EACH_METHOD
@pytest.mark.parametrize('num', [0, 1, 2])
def test_a_search_that_finds_hardly_anything(method: str, num: int) -> None:
    query = np.float32([0.6, 0.8])
    candidates = np.float32([[0.0, 1.0], [1.0, 0.0]])[:num]

    order, scores = rerank_candidates(query, candidates, method)

    assert order.tolist() == list(range(num))
    assert scores.shape == (num,)


def test_what_cannot_be_reranked() -> None:
    with pytest.raises(InputError, match=r'one of k_reciprocal, .* got .magic'):
        build_reranker('magic')
    with pytest.raises(InputError, match=r'k_reciprocal has no setting alpha.* k1'):
        build_reranker('k_reciprocal', alpha=0.5)
    with pytest.raises(InputError, match='top must be at least 1, got 0'):
        rerank_with_gallery(build_reranker('propagation'), np.eye(2), np.eye(2), 0)
    with pytest.raises(InputError, match=r'got \(2,\) and \(3, 3\)'):
        rerank_candidates(np.ones(2), np.eye(3))
    with pytest.raises(InputError, match=r'got \(1, 3\) and \(3, 3\)'):
        rerank_candidates(np.ones((1, 3)), np.eye(3))
