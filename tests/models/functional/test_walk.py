"""One step of a lazy walk, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from gckd_mm.models.functional.walk import lazy_walk, walked
from torch import Tensor

from gckd_mm.models.gckd.neighbours import Neighbours, nearest_neighbours

ROWS, K, TAU = 7, 3, 0.2


def some_neighbours() -> Neighbours:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(ROWS, 4, generator=generator)
    feats = torch.nn.functional.normalize(feats, dim=1)
    return nearest_neighbours(feats, feats, K, exclude=torch.arange(ROWS))


def transition(neighbours: Neighbours, share: float) -> list[list[float]]:
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
            table[row][end] += share * weight / total
        table[row][row] += 1 - share if ends else 1
    return table


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_a_step_stays_or_goes_to_a_neighbour(share: float) -> None:
    neighbours = some_neighbours()
    walk = lazy_walk(neighbours, share, TAU)

    found = torch.zeros(ROWS, ROWS).scatter_add_(1, walk.ends, walk.chances)

    torch.testing.assert_close(found, torch.tensor(transition(neighbours, share)))


def test_a_row_without_neighbours_stays_and_a_missing_one_is_not_visited() -> None:
    neighbours = some_neighbours()
    neighbours.index[2] = -1
    neighbours.similarity[2] = -math.inf
    neighbours.index[4, 1:] = -1
    neighbours.similarity[4, 1:] = -math.inf

    walk = lazy_walk(neighbours, 0.5, TAU)

    found = torch.zeros(ROWS, ROWS).scatter_add_(1, walk.ends, walk.chances)
    torch.testing.assert_close(found, torch.tensor(transition(neighbours, 0.5)))
    assert found[2, 2] == 1
    assert walk.ends.min() >= 0


def test_labels_walk_from_their_own_rows() -> None:
    neighbours = some_neighbours()
    walk = lazy_walk(neighbours, 0.4, TAU)
    labels = torch.tensor([[0.7, 0.3], [0.1, 0.9]])
    index = torch.tensor([[1, 5], [5, 0]])

    moved, rows = walked(labels, index, walk)

    assert moved.shape == rows.shape == (2, 2 * (1 + K))
    table = transition(neighbours, 0.4)
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
