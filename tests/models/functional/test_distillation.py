"""Soft labels, gates and their loss against loops, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.functional.distillation import (
    agreement,
    entropy,
    keep_best,
    mutual_gate,
    neighbour_labels,
    quantile_gate,
    soft_cross_entropy,
    soft_labels,
)
from gckd_mm.models.gckd.neighbours import Neighbours


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


def distributions(rows: int, columns: int) -> Tensor:
    return (random(rows, columns, seed=1) * 3).softmax(dim=1)


def naive_softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def some_neighbours() -> Neighbours:
    """Of 4 rows among 6 columns; the last has none."""
    none = -math.inf
    return Neighbours(
        torch.tensor([[5, 0, 2], [1, 4, -1], [0, -1, -1], [-1, -1, -1]]),
        torch.tensor(
            [[0.9, 0.8, 0.3], [0.7, 0.6, none], [0.2, none, none], [none, none, none]]
        ),
    )


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('temperature', [0.02, 0.5])
def test_soft_labels_against_a_loop(temperature: float, dtype: torch.dtype) -> None:
    similarity, potentials = random(4, 7).to(dtype), random(7).to(dtype) / 4

    labels = soft_labels(similarity, potentials, temperature)

    assert labels.dtype == torch.promote_types(dtype, torch.float32)
    for row, line in zip(labels.tolist(), similarity.tolist(), strict=True):
        scores = [
            (one + other) / temperature
            for one, other in zip(line, potentials.tolist(), strict=True)
        ]
        assert row == pytest.approx(naive_softmax(scores), rel=1e-4, abs=1e-7)
        assert sum(row) == pytest.approx(1)


def test_without_potentials_soft_labels_are_the_softmax() -> None:
    similarity = random(4, 7)

    labels = soft_labels(similarity, torch.zeros(7), 0.1)

    assert torch.equal(labels, F.softmax(similarity / 0.1, dim=1))


def test_a_constant_potential_changes_no_label() -> None:
    similarity = random(4, 7)

    torch.testing.assert_close(
        soft_labels(similarity, torch.full((7,), 2.0), 0.1),
        soft_labels(similarity, torch.zeros(7), 0.1),
    )


def test_the_order_of_queries_and_candidates_is_nothing() -> None:
    similarity, potentials = random(4, 7), random(7)
    rows, columns = torch.tensor([2, 0, 3, 1]), torch.tensor([6, 1, 0, 5, 4, 2, 3])

    permuted = soft_labels(similarity[rows][:, columns], potentials[columns], 0.1)

    torch.testing.assert_close(
        permuted, soft_labels(similarity, potentials, 0.1)[rows][:, columns]
    )


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


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'weights', [None, [1.0, 1.0, 1.0, 1.0], [0.5, 0.0, 2.0, 0.1], [0.0, 0.0, 1.0, 0.0]]
)
def test_soft_cross_entropy_against_a_loop(
    weights: list[float] | None, dtype: torch.dtype
) -> None:
    logits, labels = (5 * random(4, 6)).to(dtype), distributions(4, 6)

    loss = soft_cross_entropy(
        logits, labels.float(), None if weights is None else torch.tensor(weights)
    )

    total, shares = 0.0, weights or [1.0] * 4
    for row, line, weight in zip(labels.tolist(), logits.tolist(), shares, strict=True):
        log_p = [math.log(p) for p in naive_softmax(line)]
        total -= weight * sum(q * p for q, p in zip(row, log_p, strict=True))
    assert loss.shape == ()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert loss.item() == pytest.approx(total / sum(shares), rel=1e-5)


def test_a_gate_drops_rows() -> None:
    logits, labels = random(4, 6), distributions(4, 6)
    gate = torch.tensor([True, False, True, False])

    torch.testing.assert_close(
        soft_cross_entropy(logits, labels, gate),
        soft_cross_entropy(logits[gate], labels[gate]),
    )


def test_certain_labels_give_torchs_cross_entropy() -> None:
    logits, classes = random(4, 6), torch.tensor([3, 0, 5, 5])

    torch.testing.assert_close(
        soft_cross_entropy(logits, F.one_hot(classes, 6)),
        F.cross_entropy(logits, classes),
    )


def test_the_least_loss_is_the_entropy_of_the_labels() -> None:
    labels = distributions(4, 6)

    loss = soft_cross_entropy(labels.log(), labels)

    torch.testing.assert_close(loss, entropy(labels).mean())
    assert loss < soft_cross_entropy(labels.log() + random(4, 6), labels)


@pytest.mark.parametrize('weights', [None, [0.5, 0.0, 2.0]])
def test_the_gradient_of_the_loss(weights: list[float] | None) -> None:
    logits = (3 * random(3, 5)).requires_grad_()
    labels = distributions(3, 5)
    row_weights = None if weights is None else torch.tensor(weights).double()

    assert torch.autograd.gradcheck(
        lambda values: soft_cross_entropy(values, labels, row_weights), logits
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.bool])
def test_an_empty_gate_gives_zero_gradients(dtype: torch.dtype) -> None:
    logits = (100 * random(3, 5)).float().requires_grad_()

    loss = soft_cross_entropy(logits, distributions(3, 5), torch.zeros(3, dtype=dtype))
    (gradient,) = torch.autograd.grad(1000 * loss, logits)  # under a large weight, too

    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros(3, 5))


def test_far_logits_stay_finite() -> None:
    logits = (1e4 * random(3, 5)).float().requires_grad_()

    loss = soft_cross_entropy(logits, distributions(3, 5))
    (gradient,) = torch.autograd.grad(loss, logits)

    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_gradients_reach_the_student_alone() -> None:
    logits = random(3, 5).requires_grad_()
    teacher = random(3, 5).requires_grad_()
    teacher_labels = teacher.softmax(dim=1)
    weights = torch.ones(3, requires_grad=True)

    soft_cross_entropy(logits, teacher_labels, weights).backward()

    assert logits.grad is not None
    assert teacher.grad is None
    assert weights.grad is None


@pytest.mark.parametrize(
    'teacher_side',
    [
        lambda values: soft_labels(values, values[0], 0.1),
        lambda values: keep_best(values, 2),
        entropy,
        lambda values: neighbour_labels(
            Neighbours(torch.zeros(3, 5, dtype=torch.int64), values), 5, 0.1
        ),
    ],
)
def test_a_teacher_gets_no_gradient(
    teacher_side: Callable[[Tensor], Tensor],
) -> None:
    assert not teacher_side(distributions(3, 5).requires_grad_()).requires_grad


def test_entropy_against_a_loop() -> None:
    labels = torch.cat(
        [
            distributions(4, 6),
            torch.tensor([[0, 1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0.5, 0]]),
            torch.full((1, 6), 1 / 6),
        ]
    )

    values = entropy(labels)

    for value, row in zip(values.tolist(), labels.tolist(), strict=True):
        expected = -sum(p * math.log(p) for p in row if p > 0)
        assert value == pytest.approx(expected, abs=1e-12)
    assert values.tolist()[4:] == pytest.approx([0, math.log(2), math.log(6)])


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


@pytest.mark.parametrize('temperature', [0.05, 1.0])
def test_neighbour_labels_against_a_loop(temperature: float) -> None:
    neighbours = some_neighbours()

    labels = neighbour_labels(neighbours, 6, temperature)

    assert labels.dtype == torch.float32
    for row, columns, similarity in zip(
        labels.tolist(),
        neighbours.index.tolist(),
        neighbours.similarity.tolist(),
        strict=True,
    ):
        there = [place for place, column in enumerate(columns) if column >= 0]
        shares = naive_softmax([similarity[place] / temperature for place in there])
        expected = [0.0] * 6
        for place, share in zip(there, shares, strict=True):
            expected[columns[place]] = share
        assert row == pytest.approx(expected, abs=1e-7)
    assert labels.sum(dim=1).tolist() == pytest.approx([1, 1, 1, 0])


def test_the_order_of_neighbours_is_nothing() -> None:
    index, similarity = some_neighbours()
    order = torch.tensor([2, 0, 1])

    permuted = neighbour_labels(
        Neighbours(index[:, order], similarity[:, order]), 6, 0.1
    )

    torch.testing.assert_close(permuted, neighbour_labels(some_neighbours(), 6, 0.1))


def test_a_row_without_neighbours_teaches_nothing() -> None:
    labels = neighbour_labels(some_neighbours(), 6, 0.1)
    logits = random(4, 6).float().requires_grad_()

    loss = soft_cross_entropy(logits, labels, labels.sum(dim=1))
    (gradient,) = torch.autograd.grad(loss, logits)

    torch.testing.assert_close(loss, soft_cross_entropy(logits[:3], labels[:3]))
    assert torch.equal(gradient[3], torch.zeros(6))


def test_agreement_against_a_loop() -> None:
    logits, labels = random(40, 3), distributions(40, 3)

    share = agreement(logits, labels)

    same = [
        row.index(max(row)) == line.index(max(line))
        for row, line in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert 0 < sum(same) < 40
    assert share.item() == pytest.approx(sum(same) / 40)
    assert agreement(labels.log(), labels) == 1


@pytest.mark.parametrize(
    'function',
    [
        lambda values: soft_labels(values, values[0], 0.02),
        lambda values: keep_best(values, 2),
        lambda values: soft_cross_entropy(values, values, values[:, 0]),
        entropy,
        lambda values: neighbour_labels(
            Neighbours(torch.arange(5).expand(4, 5), values), 5, 0.02
        ),
        lambda values: agreement(values, values.roll(1, 1)),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    values = distributions(4, 5).to(dtype)
    outside = function(values)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = function(values)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_a_gate_of_half_precision_confidence() -> None:
    confidence = torch.tensor([0.25, 0.5, 0.75, 1], dtype=torch.bfloat16)

    assert quantile_gate(confidence, 0.5).tolist() == [False, False, True, True]
