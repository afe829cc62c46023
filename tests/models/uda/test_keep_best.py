"""What the label propagation keeps of a row of labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gckd_mm.models.uda.label_propagation_head import keep_best


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


def distributions(rows: int, columns: int) -> Tensor:
    return (random(rows, columns, seed=1) * 3).softmax(dim=1)


@pytest.mark.parametrize('k', [1, 3, 7, 100])
def test_keep_best_against_a_loop(k: int) -> None:
    labels = distributions(5, 7)

    kept = keep_best(labels, k)

    for row, line in zip(kept.tolist(), labels.tolist(), strict=True):
        best = sorted(range(7), key=lambda column: -line[column])[:k]
        total = sum(line[column] for column in best)
        expected = [line[c] / total if c in best else 0.0 for c in range(7)]
        assert row == pytest.approx(expected)
        assert [value == 0 for value in row] == [value == 0 for value in expected]


def test_keep_best_of_equal_labels_keeps_k() -> None:
    kept = keep_best(torch.full((3, 8), 1 / 8), 2)

    assert kept.sort(dim=1, descending=True).values.tolist() == 3 * [
        [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    ]


def test_keep_best_leaves_a_row_of_zeros() -> None:
    assert torch.equal(keep_best(torch.zeros(2, 4), 2), torch.zeros(2, 4))
