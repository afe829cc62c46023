"""The gates against loops and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gckd_mm.models.functional import mutual_gate, quantile_gate


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize('threshold', [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize('rows', [1, 2, 10, 64])
def test_quantile_gate_against_numpy(rows: int, threshold: float) -> None:
    confidence = random(rows)

    gate = quantile_gate(confidence, threshold)

    cut = np.quantile(confidence.numpy(), threshold)
    assert gate.dtype == torch.bool
    assert gate.tolist() == [value >= cut for value in confidence.tolist()]
    assert gate[confidence.argmax()]


def test_a_quantile_gate_is_relative() -> None:
    confidence = random(32)

    for scale, offset in ((1e-3, 0), (5, 100)):
        moved = quantile_gate(scale * confidence + offset, 0.4)
        assert torch.equal(moved, quantile_gate(confidence, 0.4))


def test_a_quantile_gate_keeps_all_of_a_tie() -> None:
    assert quantile_gate(torch.full((7,), 0.1), 0.9).all()


@pytest.mark.parametrize('n', [1, 2, 4])
def test_mutual_gate_against_a_loop(n: int) -> None:
    similarity = random(10, 6)
    best_rows = similarity.t().topk(n, dim=1).indices
    best_rows[3, -1] = -1
    rows = torch.tensor([7, 0, 9, 4, 1])
    best_column = similarity[rows].argmax(dim=1)

    gate = mutual_gate(best_column, rows, best_rows)

    expected = [
        row in best_rows[column].tolist()
        for row, column in zip(rows.tolist(), best_column.tolist(), strict=True)
    ]
    assert gate.dtype == torch.bool
    assert gate.tolist() == expected


def test_a_mutual_gate_keeps_mutual_nearest_neighbours() -> None:
    # image 0 is a hub: all captions want it, and it wants caption 1
    similarity = torch.tensor([[0.8, 0.7], [0.9, 0.1], [0.85, 0.2]])

    gate = mutual_gate(
        similarity.argmax(dim=1), torch.arange(3), similarity.argmax(dim=0)[:, None]
    )

    assert gate.tolist() == [False, True, False]
