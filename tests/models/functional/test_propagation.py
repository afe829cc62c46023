"""Propagation of embeddings and labels, against loops over neighbours."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.models.functional.propagation import (
    has_neighbours,
    neighbour_average,
    neighbour_weights,
    propagate_labels_once,
    transition_matrix,
)
from gckd_mm.models.gckd.neighbours import Neighbours, nearest_neighbours

NOBODY = float('-inf')
#: rows with all, some, one and no neighbours, and one whose gap comes first
INDEX = [[3, 0, 6], [5, 2, -1], [1, -1, -1], [-1, -1, -1], [-1, 4, 4]]
SIMILARITY = [
    [0.9, 0.7, -0.4],
    [0.8, 0.8, NOBODY],
    [0.1, NOBODY, NOBODY],
    [NOBODY, NOBODY, NOBODY],
    [NOBODY, 0.3, 0.2],
]


def graph() -> Neighbours:
    return Neighbours(torch.tensor(INDEX), torch.tensor(SIMILARITY))


def embeddings(rows: int, dim: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    feats = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return F.normalize(feats, dim=1)


def naive_average(senders: Tensor, temperature: float) -> list[list[float]]:
    rows = []
    for index, similarity in zip(INDEX, SIMILARITY, strict=True):
        row = [0.0] * senders.shape[1]
        pairs = [(i, s) for i, s in zip(index, similarity, strict=True) if i >= 0]
        total = sum(math.exp(s / temperature) for _, s in pairs)
        for i, s in pairs:
            for d, value in enumerate(senders[i].tolist()):
                row[d] += math.exp(s / temperature) / total * value
        rows.append(row)
    return rows


@pytest.mark.parametrize('temperature', [1.0, 0.1, 0.02])
@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_the_average_against_a_loop(dtype: torch.dtype, temperature: float) -> None:
    senders = embeddings(7).to(dtype)

    average = neighbour_average(senders, graph(), temperature)

    assert average.dtype == torch.promote_types(dtype, torch.float32)
    expected = torch.tensor(naive_average(senders, temperature), dtype=torch.float64)
    torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)


def test_it_knows_who_hears_nobody() -> None:
    assert has_neighbours(graph()).tolist() == [True, True, True, False, True]
    assert not neighbour_average(embeddings(7), graph(), 0.1)[3].any()


def test_weights_are_a_distribution_over_those_that_are_there() -> None:
    weights = neighbour_weights(graph(), 0.1)

    assert torch.equal(weights == 0, torch.tensor(INDEX) < 0)
    torch.testing.assert_close(weights.sum(dim=1), has_neighbours(graph()).float())


@pytest.mark.parametrize('slots', [0, 2])
@pytest.mark.parametrize('rows', [0, 3])
def test_nobody_to_hear_and_nobody_to_hear_it(rows: int, slots: int) -> None:
    senders = torch.empty(0, 4)
    shape = (rows, slots)
    nobody = Neighbours(torch.full(shape, -1), torch.full(shape, NOBODY))

    assert torch.equal(neighbour_average(senders, nobody, 0.1), torch.zeros(rows, 4))


def test_autocast_changes_nothing() -> None:
    senders = embeddings(7).float()
    outside = neighbour_average(senders, graph(), 0.1)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (senders @ senders.t()).dtype == torch.bfloat16
        inside = neighbour_average(senders, graph(), 0.1)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_gradients_against_finite_differences() -> None:
    senders = embeddings(7).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda senders: neighbour_average(senders, graph(), 0.1), senders
    )


def test_gradients_stay_finite_where_there_is_no_neighbour() -> None:
    similarity = torch.tensor(SIMILARITY, requires_grad=True)
    senders = embeddings(7).float().requires_grad_()

    neighbours = Neighbours(torch.tensor(INDEX), similarity)
    neighbour_average(senders, neighbours, 1e-3).sum().backward()

    assert similarity.grad.isfinite().all()
    assert senders.grad.isfinite().all()


def test_memory_is_linear_in_the_nodes() -> None:
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    count, slots, dim = 20_000, 6, 4
    feats = F.normalize(torch.randn(count, dim), dim=1).requires_grad_()
    neighbours = Neighbours(
        torch.randint(count, (count, slots)), torch.rand(count, slots)
    )
    with Sizes():
        neighbour_average(feats, neighbours, 0.1).sum().backward()

    assert max(sizes) == count * slots * dim


ROWS, K, TAU = 7, 3, 0.2


def some_neighbours() -> Neighbours:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(ROWS, 4, generator=generator)
    feats = torch.nn.functional.normalize(feats, dim=1)
    return nearest_neighbours(feats, feats, K, exclude=torch.arange(ROWS))


def naive_transitions(neighbours: Neighbours, alpha: float) -> list[list[float]]:
    """Probability of going from row to row."""
    table = [[0.0] * ROWS for _ in range(ROWS)]
    for row in range(ROWS):
        ends = [
            (end, math.exp(similarity / TAU))
            for end, similarity in zip(
                neighbours.index[row].tolist(),
                neighbours.similarity[row].tolist(),
                strict=True,
            )
            if end >= 0
        ]
        total = sum(weight for _, weight in ends)
        for end, weight in ends:
            table[row][end] += alpha * weight / total
        table[row][row] += 1 - alpha if ends else 1
    return table


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.0])
def test_transitions_against_a_loop(alpha: float) -> None:
    neighbours = some_neighbours()
    matrix = transition_matrix(neighbours, alpha, TAU)

    found = torch.zeros(ROWS, ROWS).scatter_add_(1, matrix.index, matrix.probability)

    torch.testing.assert_close(
        found, torch.tensor(naive_transitions(neighbours, alpha))
    )


def test_a_row_without_neighbours_keeps_its_labels() -> None:
    neighbours = some_neighbours()
    neighbours.index[2] = -1
    neighbours.similarity[2] = -math.inf
    neighbours.index[4, 1:] = -1
    neighbours.similarity[4, 1:] = -math.inf

    matrix = transition_matrix(neighbours, 0.5, TAU)

    found = torch.zeros(ROWS, ROWS).scatter_add_(1, matrix.index, matrix.probability)
    torch.testing.assert_close(found, torch.tensor(naive_transitions(neighbours, 0.5)))
    assert found[2, 2] == 1
    assert matrix.index.min() >= 0


def test_propagated_labels_against_a_loop() -> None:
    neighbours = some_neighbours()
    matrix = transition_matrix(neighbours, 0.4, TAU)
    labels = torch.tensor([[0.7, 0.3], [0.1, 0.9]])
    index = torch.tensor([[1, 5], [5, 0]])

    moved, rows = propagate_labels_once(labels, index, matrix)

    assert moved.shape == rows.shape == (2, 2 * (1 + K))
    table = naive_transitions(neighbours, 0.4)
    expected = [
        [
            sum(
                label * table[row][end]
                for label, row in zip(own.tolist(), where.tolist(), strict=True)
            )
            for end in range(ROWS)
        ]
        for own, where in zip(labels, index, strict=True)
    ]
    found = _dense(moved, rows)
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(found.sum(dim=1), labels.sum(dim=1))


def _dense(labels: Tensor, index: Tensor) -> Tensor:
    return torch.zeros(len(labels), ROWS).scatter_add_(1, index, labels)
