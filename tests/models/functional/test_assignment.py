"""Corrections for hubness against loops over pairs and dense transport in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gckd_mm.models.functional.assignment import (
    CandidateEdges,
    candidate_edges,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.gckd.memory import Neighbours

Potentials = Callable[[CandidateEdges, int, int], tuple[Tensor, Tensor]]


def relaxed_potentials(
    edges: CandidateEdges, num_rows: int, num_columns: int
) -> tuple[Tensor, Tensor]:
    return sinkhorn_potentials(edges, num_rows, num_columns, relaxation=0.1)


CORRECTIONS = (sinkhorn_potentials, relaxed_potentials)


def similarities(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    return torch.rand(rows, columns, generator=generator) * 2 - 1


def sparse_edges(rows: int, columns: int) -> CandidateEdges:
    """Half of all pairs, without row 1 and column 2, in no order."""
    similarity = similarities(rows, columns)
    generator = torch.Generator().manual_seed(rows + columns)
    mask = torch.rand(rows, columns, generator=generator) < 0.5
    mask[1], mask[:, 2] = False, False
    row, column = mask.nonzero(as_tuple=True)
    order = torch.randperm(len(row), generator=generator)
    row, column = row[order], column[order]
    return CandidateEdges(row, column, similarity[row, column])


def all_edges(similarity: Tensor) -> CandidateEdges:
    row, column = torch.ones_like(similarity).nonzero(as_tuple=True)
    return CandidateEdges(row, column, similarity[row, column])


def pairs_of(edges: CandidateEdges) -> list[tuple[int, int, float]]:
    return list(
        zip(
            edges.rows.tolist(),
            edges.columns.tolist(),
            edges.similarity.tolist(),
            strict=True,
        )
    )


def dense_sinkhorn(
    edges: CandidateEdges,
    num_rows: int,
    num_columns: int,
    epsilon: float,
    iterations: int,
    relaxation: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Unbalanced transport on a full matrix, NaN where a row or column is empty."""
    kernel = np.zeros((num_rows, num_columns))
    for row, column, similarity in pairs_of(edges):
        kernel[row, column] = math.exp(similarity / epsilon)
    power = 1.0 if relaxation is None else relaxation / (relaxation + epsilon)
    has_row, has_column = kernel.any(1), kernel.any(0)
    u, v = np.full(num_rows, np.nan), np.full(num_columns, np.nan)
    inner = kernel[np.ix_(has_row, has_column)]
    a, b = np.ones(inner.shape[0]), np.ones(inner.shape[1])
    for _ in range(iterations):
        a = (1 / len(a) / (inner @ b)) ** power
        b = (1 / len(b) / (inner.T @ a)) ** power
    u[has_row], v[has_column] = a, b
    return epsilon * np.log(u), epsilon * np.log(v)


def plan(
    edges: CandidateEdges, potentials: tuple[Tensor, Tensor], epsilon: float
) -> Tensor:
    f, g = (potential.double() for potential in potentials)
    return (
        (edges.similarity.double() + f[edges.rows] + g[edges.columns]) / epsilon
    ).exp()


def assert_labels_agree(one: Tensor, other: np.ndarray) -> None:
    """Equal but for a constant, which no softmax sees; NaN in the judge is 0 here."""
    known = ~np.isnan(other)
    assert (one[torch.from_numpy(~known)] == 0).all()
    ours = one.double().numpy()[known]
    np.testing.assert_allclose(
        ours - ours.mean(), other[known] - other[known].mean(), atol=1e-5
    )


def neighbours(index: list[list[int]], similarity: list[list[float]]) -> Neighbours:
    return Neighbours(torch.tensor(index), torch.tensor(similarity))


def test_candidate_edges_against_a_loop() -> None:
    similarity = similarities(9, 6)
    images, captions = similarity.topk(3, dim=1), similarity.t().topk(4, dim=1)
    image_index, image_similarity = images.indices.clone(), images.values.clone()
    caption_index, caption_similarity = captions.indices.clone(), captions.values
    image_index[4, 1:], image_similarity[4, 1:] = -1, -math.inf
    image_index[0], image_similarity[0] = -1, -math.inf
    caption_index[5, 3], caption_similarity[5, 3] = -1, -math.inf

    edges = candidate_edges(
        Neighbours(image_index, image_similarity),
        Neighbours(caption_index, caption_similarity),
    )

    expected = {
        (row, column)
        for row, line in enumerate(image_index.tolist())
        for column in line
        if column >= 0
    } | {
        (row, column)
        for column, line in enumerate(caption_index.tolist())
        for row in line
        if row >= 0
    }
    assert len(expected) < (image_index >= 0).sum() + (caption_index >= 0).sum()
    assert [(row, column) for row, column, _ in pairs_of(edges)] == sorted(expected)
    assert torch.equal(edges.similarity, similarity[edges.rows, edges.columns])
    assert (edges.rows.dtype, edges.columns.dtype) == (torch.int64, torch.int64)
    assert edges.similarity.dtype == torch.float32


def test_where_both_sides_know_a_pair_the_captions_side_is_believed() -> None:
    edges = candidate_edges(
        neighbours([[1], [0]], [[0.5], [0.25]]),
        neighbours([[0, 1], [1, 0]], [[0.1, 0.2], [0.3, 0.4]]),
    )

    rounded = [(row, column, round(s, 3)) for row, column, s in pairs_of(edges)]
    assert rounded == [(0, 0, 0.1), (0, 1, 0.5), (1, 0, 0.25), (1, 1, 0.3)]


def test_without_neighbours_there_are_no_edges() -> None:
    absent = neighbours([[-1], [-1]], [[-math.inf], [-math.inf]])

    assert pairs_of(candidate_edges(absent, absent)) == []


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_edges_are_scored_by_the_embeddings_of_their_ends(dtype: torch.dtype) -> None:
    captions = torch.randn(7, 5, dtype=dtype)
    images = torch.randn(9, 5, dtype=dtype)
    edges = sparse_edges(7, 9)
    order = (edges.rows * 9 + edges.columns).argsort()
    edges = CandidateEdges(*(field[order] for field in edges))

    scored = score_edges(edges, captions, images)

    assert scored.rows is edges.rows
    assert scored.columns is edges.columns
    expected = [
        captions[k] @ images[j] for k, j in zip(edges.rows, edges.columns, strict=True)
    ]
    torch.testing.assert_close(scored.similarity, torch.stack(expected))


def test_no_edges_have_no_scores() -> None:
    none = torch.zeros(0, dtype=torch.long)
    edges = CandidateEdges(none, none, torch.zeros(0))
    assert pairs_of(score_edges(edges, torch.ones(2, 3), torch.ones(4, 3))) == []


@pytest.mark.parametrize('relaxation', [None, 0.02, 0.06, 1.0])
@pytest.mark.parametrize('iterations', [1, 4, 20])
@pytest.mark.parametrize('epsilon', [0.03, 0.06, 0.5])
def test_sinkhorn_against_dense_float64(
    epsilon: float, iterations: int, relaxation: float | None
) -> None:
    edges = sparse_edges(12, 9)
    settings = (12, 9, epsilon, iterations, relaxation)

    f, g = sinkhorn_potentials(edges, *settings)

    assert f.dtype == g.dtype == torch.float32
    expected_f, expected_g = dense_sinkhorn(edges, *settings)
    assert_labels_agree(f, expected_f)
    assert_labels_agree(g, expected_g)


@pytest.mark.parametrize('relaxation', [0.02, 0.06, 1.0])
def test_relaxed_potentials_have_no_free_constant(relaxation: float) -> None:
    edges = sparse_edges(12, 9)
    settings = (12, 9, 0.06, 500, relaxation)

    for ours, expected in zip(
        sinkhorn_potentials(edges, *settings),
        dense_sinkhorn(edges, *settings),
        strict=True,
    ):
        np.testing.assert_allclose(ours.numpy(), np.nan_to_num(expected), atol=1e-5)


def test_balanced_marginals_of_a_full_graph() -> None:
    edges = all_edges(similarities(7, 5))

    mass = plan(edges, sinkhorn_potentials(edges, 7, 5, iterations=500), 0.06)

    rows = torch.zeros(7).double().index_add_(0, edges.rows, mass)
    columns = torch.zeros(5).double().index_add_(0, edges.columns, mass)
    torch.testing.assert_close(rows, torch.full_like(rows, 1 / 7), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        columns, torch.full_like(columns, 1 / 5), rtol=1e-4, atol=0
    )


def test_column_marginals_hold_after_one_iteration() -> None:
    edges = sparse_edges(12, 9)

    mass = plan(edges, sinkhorn_potentials(edges, 12, 9, iterations=1), 0.06)

    columns = torch.zeros(9).double().index_add_(0, edges.columns, mass)
    expected = torch.full_like(columns, 1 / 8)
    expected[2] = 0
    torch.testing.assert_close(columns, expected, rtol=1e-4, atol=0)


def test_no_relaxation_is_the_limit_of_a_large_one() -> None:
    edges = sparse_edges(12, 9)

    for hard, soft in zip(
        sinkhorn_potentials(edges, 12, 9),
        sinkhorn_potentials(edges, 12, 9, relaxation=1e5),
        strict=True,
    ):
        torch.testing.assert_close(soft - soft.mean(), hard - hard.mean())


def test_a_small_relaxation_leaves_the_similarities_alone() -> None:
    for potential in sinkhorn_potentials(
        sparse_edges(12, 9), 12, 9, iterations=50, relaxation=1e-7
    ):
        torch.testing.assert_close(
            potential, torch.zeros_like(potential), rtol=0, atol=1e-4
        )


def hub(people: int = 8) -> Tensor:
    """Image 0 is nearer to every caption than the image of its own person."""
    similarity = torch.full((people, people), 0.1)
    similarity.fill_diagonal_(0.6)
    similarity[:, 0] = 0.7
    return similarity


def test_a_hub_is_no_longer_everybodys_best() -> None:
    similarity, own = hub(), torch.arange(1, 8)
    assert (similarity.argmax(dim=1) == 0).all()

    _, g = sinkhorn_potentials(all_edges(similarity), 8, 8)
    f, _ = sinkhorn_potentials(all_edges(similarity.t()), 8, 8)

    assert torch.equal((similarity + g).argmax(dim=1)[1:], own)
    # and a caption that is near to every image is no longer every image's
    assert torch.equal((similarity.t() + f[:, None]).argmax(dim=0)[1:], own)


def test_balance_gives_the_hub_to_the_caption_that_is_left() -> None:
    similarity = hub()

    _, g = sinkhorn_potentials(all_edges(similarity), 8, 8, iterations=50)

    assert torch.equal((similarity + g).argmax(dim=1), torch.arange(8))


def test_the_more_relaxation_the_more_the_hub_loses() -> None:
    edges = all_edges(hub())

    lost = []
    for relaxation in (1e-3, 0.02, 0.1, 1.0, None):
        _, g = sinkhorn_potentials(edges, 8, 8, iterations=100, relaxation=relaxation)
        lost.append((g[1:].mean() - g[0]).item())

    assert lost == sorted(lost)
    assert lost[0] < 0.1 * lost[-1]


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_new_numbers_for_captions_and_images_permute_the_potentials(
    correction: Potentials,
) -> None:
    edges = sparse_edges(12, 9)
    generator = torch.Generator().manual_seed(5)
    new_row, new_column, order = (
        torch.randperm(size, generator=generator) for size in (12, 9, len(edges.rows))
    )
    permuted = CandidateEdges(
        new_row[edges.rows][order],
        new_column[edges.columns][order],
        edges.similarity[order],
    )

    for before, after, numbers in zip(
        correction(edges, 12, 9),
        correction(permuted, 12, 9),
        (new_row, new_column),
        strict=True,
    ):
        torch.testing.assert_close(after[numbers], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_a_teacher_of_low_similarities_has_the_same_labels(
    correction: Potentials,
) -> None:
    edges = sparse_edges(12, 9)
    low = edges._replace(similarity=edges.similarity - 10)

    for one, other in zip(
        correction(edges, 12, 9), correction(low, 12, 9), strict=True
    ):
        kept = one != 0
        difference = (other - one)[kept]
        torch.testing.assert_close(
            difference, difference.mean().expand_as(difference), rtol=0, atol=1e-5
        )


def test_a_sharp_epsilon_stays_finite() -> None:
    for potential in sinkhorn_potentials(sparse_edges(12, 9), 12, 9, epsilon=1e-3):
        assert potential.isfinite().all()


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_no_edges_correct_nothing(correction: Potentials) -> None:
    none = torch.zeros(0, dtype=torch.int64)

    f, g = correction(CandidateEdges(none, none, torch.zeros(0)), 4, 3)

    assert torch.equal(f, torch.zeros(4))
    assert torch.equal(g, torch.zeros(3))


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_captions_and_images_without_edges_get_zero(correction: Potentials) -> None:
    edges = sparse_edges(12, 9)

    f, g = correction(edges, 15, 11)

    has_row, has_column = torch.zeros(15).bool(), torch.zeros(11).bool()
    has_row[edges.rows], has_column[edges.columns] = True, True
    assert torch.equal(f != 0, has_row)
    assert torch.equal(g != 0, has_column)
    # and nobody else notices them
    for more, fewer in zip((f, g), correction(edges, 12, 9), strict=True):
        assert torch.equal(more[: len(fewer)], fewer)


@pytest.mark.parametrize('correction', CORRECTIONS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(correction: Potentials, dtype: torch.dtype) -> None:
    edges = sparse_edges(12, 9)
    edges = edges._replace(similarity=edges.similarity.to(dtype))
    outside = correction(edges, 12, 9)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = correction(edges, 12, 9)

    for one, other in zip(inside, outside, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_the_teacher_gets_no_gradient(correction: Potentials) -> None:
    edges = sparse_edges(12, 9)
    edges = edges._replace(similarity=edges.similarity.requires_grad_())

    assert not any(potential.requires_grad for potential in correction(edges, 12, 9))


@pytest.mark.parametrize('correction', CORRECTIONS)
def test_the_cost_is_that_of_the_edges(correction: Potentials) -> None:
    people = 300_000  # their full matrix would take 360 GB
    diagonal = torch.arange(people)

    f, g = correction(
        CandidateEdges(diagonal, diagonal, torch.full((people,), 0.5)), people, people
    )

    for potential in (f, g):
        torch.testing.assert_close(potential, potential[0].expand(people))
