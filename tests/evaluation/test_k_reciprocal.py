"""k-reciprocal re-ranking against the paper's equations on full matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation import k_reciprocal
from gckd_mm.evaluation.k_reciprocal import KReciprocal
from tests.evaluation.galleries import Searched, searched, seeds_of
from tests.evaluation.test_target_structure import LargestTensor


def dense_sets(gallery: Tensor, k1: int, k2: int) -> np.ndarray:
    """Equations 2 to 7 and 11 of Zhong et al., with a row of N weights an image."""
    x = gallery.double().numpy()
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, -1)  # an image is its own first neighbour
    ranking = distance.argsort(axis=1)
    np.fill_diagonal(distance, 0)

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]}

    weights = np.zeros_like(distance)
    for i in range(len(x)):
        members = first = reciprocal(i, k1)
        for j in first:
            half = reciprocal(j, round(k1 / 2))
            if 3 * len(first & half) >= 2 * len(half):
                members = members | half
        chosen = sorted(members)
        weights[i, chosen] = np.exp(-distance[i, chosen])
    weights /= weights.sum(axis=1, keepdims=True)
    return np.array([weights[ranking[i, :k2]].mean(axis=0) for i in range(len(x))])


def dense_scores(settings: KReciprocal, case: Searched) -> np.ndarray:
    sets = dense_sets(case.gallery, settings.k1, settings.k2)
    scores = np.zeros(case.order.shape)
    for q, (images, similarity) in enumerate(
        zip(case.order.numpy(), case.similarity, strict=True)
    ):
        weights = seeds_of(similarity, settings.seeds, settings.temperature)
        own = weights @ sets[images[: len(weights)]]
        smaller = np.minimum(own, sets[images]).sum(axis=1)
        larger = np.maximum(own, sets[images]).sum(axis=1)
        s = similarity.numpy()
        share = settings.similarity_share
        relative = (s - s[-1]) / (s[0] - s[-1])
        scores[q] = (1 - share) * smaller / larger + share * relative
    return scores


@pytest.mark.parametrize(
    ('settings', 'num_images', 'top'),
    [
        (KReciprocal(), 60, 20),
        (KReciprocal(k1=5, k2=1, seeds=1, similarity_share=0), 60, 60),
        (KReciprocal(k1=12, k2=6, seeds=10, temperature=0.5), 90, 25),
        (KReciprocal(k1=2, k2=5, seeds=40, similarity_share=1), 30, 12),
        (KReciprocal(k1=50, k2=60), 20, 20),
    ],
)
def test_against_full_matrices(
    settings: KReciprocal, num_images: int, top: int
) -> None:
    case = searched(num_images, 9, top)

    found = settings.over(case.gallery)(case.order, case.similarity)

    np.testing.assert_allclose(found, dense_scores(settings, case), rtol=0, atol=1e-6)


def test_the_case_has_sets_that_grow_and_an_order_that_changes() -> None:
    case = searched(60, 9, 20)
    grown = dense_sets(case.gallery, 8, 1) > 0
    scores = KReciprocal().over(case.gallery)(case.order, case.similarity)

    assert (grown.sum(axis=1) > 1 + 8).any(), 'no set was expanded'
    assert (grown.sum(axis=1) < 1 + 8).any(), 'all neighbours are mutual'
    assert (scores.diff(dim=1) > 0).any()


def test_the_scale_of_similarities_to_captions_does_not_matter() -> None:
    case = searched(60, 9, 20)
    scores = KReciprocal().over(case.gallery)

    found = scores(case.order, 0.1 * case.similarity + 0.2)

    torch.testing.assert_close(found, scores(case.order, case.similarity))


def test_queries_are_scored_one_by_one_or_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = searched(60, 9, 20)
    expected = KReciprocal().over(case.gallery)(case.order, case.similarity)
    monkeypatch.setattr(k_reciprocal, '_MEMBERS', 1)

    found = KReciprocal().over(case.gallery)(case.order, case.similarity)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_an_image_that_looks_like_the_first_one_moves_up() -> None:
    # 0 to 3 are one person's, the last of which the caption does not fit.
    gallery = F.normalize(
        torch.tensor([[1.0, 0.3], [1.0, 0.31], [1.0, 0.32], [1.0, 0.33], [1.0, -0.32]])
    )
    order = torch.tensor([[0, 1, 2, 4, 3]])
    similarity = torch.tensor([[0.60, 0.59, 0.58, 0.42, 0.40]])
    settings = KReciprocal(k1=3, k2=1, seeds=3)

    (scores,) = settings.over(gallery)(order, similarity)

    assert scores[4] > scores[3]


def test_no_matrix_of_all_pairs_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_reciprocal, '_SIMILARITIES', 50_000)
    monkeypatch.setattr(k_reciprocal, '_MEMBERS', 50_000)
    case = searched(2000, 500, 30)

    with LargestTensor() as mode:
        KReciprocal().over(case.gallery)(case.order, case.similarity)

    # 100 numbers an image, where all pairs were 2000
    assert mode.largest < 100 * 2000


@pytest.mark.parametrize('num', [1, 2, 9])
def test_equal_images_score_alike(num: int) -> None:
    gallery = F.normalize(torch.ones(num, 4))
    order, similarity = torch.arange(num)[None], torch.full((1, num), 0.3)

    scores = KReciprocal(k1=9, k2=1).over(gallery)(order, similarity)

    torch.testing.assert_close(scores, torch.ones(1, num))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'k1': 0}, 'k1 and k2 must be at least 1, got 0 and 3'),
        ({'k2': 0}, 'got 8 and 0'),
        ({'seeds': 0}, 'seeds of at least 1 .* got 0'),
        ({'temperature': 0.0}, 'positive temperature, got 6 and 0'),
        ({'similarity_share': 1.5}, 'similarity_share must be from 0 to 1, got 1.5'),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KReciprocal(**settings)
