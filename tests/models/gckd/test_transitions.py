"""One step of label propagation against loops over neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gckd_mm.models.gckd.labels import propagate_labels_once, transition_matrix
from gckd_mm.models.gckd.memory import Neighbours, nearest_neighbours

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
