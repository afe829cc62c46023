"""Propagation over the gallery against a dense solve in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation import gallery_propagation
from gckd_mm.evaluation.gallery_propagation import GalleryPropagation
from tests.evaluation.galleries import Searched, searched, seeds_of

#: enough steps for the solver to be done
DONE = 60


def dense_walk(gallery: Tensor, settings: GalleryPropagation) -> np.ndarray:
    """(I − α D⁻¹W)⁻¹, with W from the k nearest of each image."""
    similarity = gallery.double().numpy() @ gallery.double().numpy().T
    np.fill_diagonal(similarity, -np.inf)
    directed = np.zeros_like(similarity)
    for i, row in enumerate(similarity):
        for j in np.argsort(-row)[: settings.k]:
            directed[i, j] = max(row[j], 0) ** settings.exponent
    weights = directed + directed.T
    steps = weights / weights.sum(axis=1, keepdims=True)
    return np.linalg.inv(np.eye(len(steps)) - settings.alpha * steps)


def dense_scores(settings: GalleryPropagation, case: Searched) -> np.ndarray:
    walk = dense_walk(case.gallery, settings)
    scores = np.zeros(case.order.shape)
    for q, images in enumerate(case.order.numpy()):
        weights = seeds_of(case.similarity[q], settings.seeds, settings.temperature)
        found = walk[:, images[: len(weights)]] @ weights
        scores[q] = found[images] / found[images].max()
    return scores


@pytest.mark.parametrize(
    ('settings', 'num_images', 'top'),
    [
        (GalleryPropagation(iterations=DONE), 60, 20),
        (GalleryPropagation(k=2, alpha=0.99, iterations=4 * DONE), 60, 60),
        (GalleryPropagation(k=10, exponent=1, seeds=3, iterations=DONE), 90, 25),
        (GalleryPropagation(alpha=0.5, temperature=1, iterations=DONE), 30, 12),
    ],
)
def test_against_a_dense_solve(
    settings: GalleryPropagation, num_images: int, top: int
) -> None:
    case = searched(num_images, 9, top)

    found = settings.over(case.gallery)(case.order, case.similarity)

    np.testing.assert_allclose(found, dense_scores(settings, case), rtol=0, atol=1e-6)
    assert (found.diff(dim=1) > 0).any(), 'the order stays as it was'


def test_few_steps_of_the_solver_are_near_the_solution() -> None:
    case = searched(200, 20, 50)
    settings = GalleryPropagation()

    found = settings.over(case.gallery)(case.order, case.similarity)

    np.testing.assert_allclose(found, dense_scores(settings, case), rtol=0, atol=1e-3)


def test_an_image_that_reaches_no_seed_scores_nothing() -> None:
    # Three groups, each image with two neighbours in its own.
    gallery = F.normalize(
        torch.eye(3).repeat_interleave(3, 0) + 0.01 * torch.rand(9, 3)
    )
    order = torch.tensor([[0, 3, 1, 4, 2, 5, 6, 7, 8]])
    similarity = torch.linspace(0.5, 0.1, 9)[None]

    scores = GalleryPropagation(k=2, seeds=2).over(gallery)(order, similarity)

    reached = scores[0][order[0].argsort()] > 0
    assert reached.tolist() == [True] * 6 + [False] * 3


def test_queries_are_scored_one_by_one_or_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = searched(60, 9, 20)
    expected = GalleryPropagation().over(case.gallery)(case.order, case.similarity)
    shapes = []

    def propagate(graph: object, labels: Tensor, *rest: object) -> Tensor:
        shapes.append(labels.shape)
        return propagate_labels(graph, labels, *rest)

    propagate_labels = gallery_propagation.propagate_labels
    monkeypatch.setattr(gallery_propagation, 'propagate_labels', propagate)
    monkeypatch.setattr(gallery_propagation, '_ENTRIES', 60 * 4)

    found = GalleryPropagation().over(case.gallery)(case.order, case.similarity)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert shapes == [(60, 4), (60, 4), (60, 1)]


@pytest.mark.parametrize('num', [1, 2])
def test_a_gallery_with_hardly_an_image(num: int) -> None:
    gallery = F.normalize(torch.ones(num, 4))
    order, similarity = torch.arange(num)[None], torch.full((1, num), 0.3)

    scores = GalleryPropagation().over(gallery)(order, similarity)

    torch.testing.assert_close(scores, torch.ones(1, num))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'k': 0}, 'k and iterations must be at least 1, got 0 and 20'),
        ({'iterations': 0}, 'got 4 and 0'),
        ({'alpha': 1.0}, 'alpha must be between 0 and 1, got 1'),
        ({'exponent': -1.0}, 'exponent must not be negative, got -1'),
        ({'seeds': 0}, 'propagation: needs seeds of at least 1 .* got 0'),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GalleryPropagation(**settings)
