"""Re-ranking against a loop over queries, and what it must leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation.reranking import relative_similarity, rerank, seed_weights

QUERIES, GALLERY, TOP = 5, 20, 8


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Return the order (Q, K), its similarities and the logits of all pairs (Q, G)."""
    similarity = 2 * torch.rand(QUERIES, GALLERY) - 1
    values, order = similarity.topk(TOP, dim=1)
    return order, values, 3 * torch.randn(QUERIES, GALLERY)


@pytest.mark.parametrize('chunk_size', [1, 7, TOP, 1000])
@pytest.mark.parametrize('weight', [0.1, 1.0])
def test_the_order_against_a_loop(weight: float, chunk_size: int) -> None:
    order, similarity, logits = problem()

    found = rerank(
        order, lambda q, g: logits[q, g], weight, similarity, chunk_size=chunk_size
    )

    assert found.dtype == torch.int64
    for query in range(QUERIES):
        scores = {
            item: value + weight / (1 + math.exp(-logits[query, item].item()))
            for item, value in zip(
                order[query].tolist(), similarity[query].tolist(), strict=True
            )
        }
        assert found[query].tolist() == sorted(
            scores, key=scores.__getitem__, reverse=True
        )
    assert not torch.equal(found, order)


def test_a_weight_of_zero_changes_nothing() -> None:
    order, similarity, logits = problem()

    assert torch.equal(rerank(order, lambda q, g: logits[q, g], 0, similarity), order)


def test_ties_keep_the_first_order() -> None:
    # Long rows: short ones are sorted stably by any algorithm.
    order = torch.stack([torch.randperm(500) for _ in range(3)])
    similarity = torch.zeros(3, 500)

    found = rerank(order, lambda q, g: (g % 2).float(), 1.0, similarity)

    for query in range(3):
        items = order[query].tolist()
        odd = [item for item in items if item % 2]
        assert found[query].tolist() == odd + [item for item in items if not item % 2]


def test_the_scorer_gets_each_pair_once_in_chunks() -> None:
    order, similarity, _ = problem()
    pairs: list[tuple[int, int]] = []
    sizes = []

    def scorer(query: Tensor, gallery: Tensor) -> Tensor:
        assert query.dtype == gallery.dtype == torch.int64
        pairs.extend(zip(query.tolist(), gallery.tolist(), strict=True))
        sizes.append(len(query))
        return torch.zeros(len(query), dtype=torch.bfloat16)

    rerank(order, scorer, 1.0, similarity, chunk_size=12)

    assert sizes == [12, 12, 12, 4]
    assert pairs == [(q, g) for q in range(QUERIES) for g in order[q].tolist()]


def test_logits_of_half_precision_are_told_apart() -> None:
    # Their sigmoids are one and the same number in bfloat16.
    logits = torch.tensor([5.0, 5.03125], dtype=torch.bfloat16)
    assert len(logits.sigmoid().unique()) == 1

    found = rerank(torch.tensor([[0, 1]]), lambda _, g: logits[g], 1, torch.zeros(1, 2))

    assert found.tolist() == [[1, 0]]


def test_no_gradient_is_kept() -> None:
    order, similarity, logits = problem()
    logits.requires_grad_()
    flags = []

    def scorer(query: Tensor, gallery: Tensor) -> Tensor:
        found = logits[query, gallery]
        flags.append(found.requires_grad)
        return found

    rerank(order, scorer, 1.0, similarity)

    assert flags == [False]


def test_wrong_arguments_are_refused() -> None:
    order, similarity, logits = problem()

    def scorer(query: Tensor, gallery: Tensor) -> Tensor:
        return logits[query, gallery]

    with pytest.raises(InputError, match='must not be negative, got -1'):
        rerank(order, scorer, -1, similarity)
    with pytest.raises(InputError, match='chunk_size must be at least 1, got 0'):
        rerank(order, scorer, 1, similarity, chunk_size=0)
    with pytest.raises(ValueError, match=r'got \(5, 8\) and \(5, 7\)'):
        rerank(order, scorer, 1, similarity[:, 1:])
    logits[2, order[2, 3]] = math.nan
    with pytest.raises(ValueError, match='NaN'):
        rerank(order, scorer, 1, similarity)


def test_similarities_are_relative_to_their_shortlist() -> None:
    similarity = torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.3, 0.3]])

    found = relative_similarity(similarity)

    torch.testing.assert_close(found, torch.tensor([[1.0, 0.75, 0.0], [1.0, 1.0, 1.0]]))
    assert relative_similarity(similarity[:, :1]).tolist() == [[1.0], [1.0]]


def test_seeds_weigh_by_their_relative_similarity() -> None:
    similarity = torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.3, 0.3]])

    found = seed_weights(similarity, 2, 0.5)

    first = math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0.75 / 0.5))
    expected = torch.tensor([[first, 1 - first], [0.5, 0.5]])
    torch.testing.assert_close(found, expected)
    assert seed_weights(similarity, 9, 0.5).shape == (2, 3)
