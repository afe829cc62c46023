"""The loss of soft labels, and the labels of neighbours, against loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.heads.momentum_distill_head import (
    NeighbourConsistencyHead,
    soft_cross_entropy,
)


def neighbour_labels(
    neighbours: Neighbours, columns: int, temperature: float
) -> Tensor:
    head = NeighbourConsistencyHead(neighbour_temperature=temperature)
    return head.labels(neighbours, columns)[0]


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
@pytest.mark.parametrize(
    'weights', [[1.0, 1.0, 1.0, 1.0], [0.5, 0.0, 2.0, 0.1], [0.0, 0.0, 1.0, 0.0]]
)
def test_soft_cross_entropy_against_a_loop(
    weights: list[float], dtype: torch.dtype
) -> None:
    logits, labels = (5 * random(4, 6)).to(dtype), distributions(4, 6)

    loss = soft_cross_entropy(logits, labels.float(), torch.tensor(weights))

    total = 0.0
    for row, line, weight in zip(
        labels.tolist(), logits.tolist(), weights, strict=True
    ):
        log_p = [math.log(p) for p in naive_softmax(line)]
        total -= weight * sum(q * p for q, p in zip(row, log_p, strict=True))
    assert loss.shape == ()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert loss.item() == pytest.approx(total / sum(weights), rel=1e-5)


def test_a_gate_drops_rows() -> None:
    logits, labels = random(4, 6), distributions(4, 6)
    gate = torch.tensor([True, False, True, False])

    torch.testing.assert_close(
        soft_cross_entropy(logits, labels, gate),
        soft_cross_entropy(logits[gate], labels[gate], torch.ones(2)),
    )


def test_certain_labels_give_torchs_cross_entropy() -> None:
    logits, classes = random(4, 6), torch.tensor([3, 0, 5, 5])

    torch.testing.assert_close(
        soft_cross_entropy(logits, F.one_hot(classes, 6), torch.ones(4)),
        F.cross_entropy(logits, classes),
    )


def test_the_least_loss_is_the_entropy_of_the_labels() -> None:
    labels = distributions(4, 6)

    loss = soft_cross_entropy(labels.log(), labels, torch.ones(4))

    torch.testing.assert_close(loss, torch.special.entr(labels).sum(dim=1).mean())
    other = labels.log() + random(4, 6)
    assert loss < soft_cross_entropy(other, labels, torch.ones(4))


@pytest.mark.parametrize('weights', [[1.0, 1.0, 1.0], [0.5, 0.0, 2.0]])
def test_the_gradient_of_the_loss(weights: list[float]) -> None:
    logits = (3 * random(3, 5)).requires_grad_()
    labels = distributions(3, 5)
    row_weights = torch.tensor(weights).double()

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

    loss = soft_cross_entropy(logits, distributions(3, 5), torch.ones(3))
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
        lambda values: neighbour_labels(
            Neighbours(torch.zeros(3, 5, dtype=torch.int64), values), 5, 0.1
        ),
    ],
)
def test_a_teacher_gets_no_gradient(
    teacher_side: Callable[[Tensor], Tensor],
) -> None:
    assert not teacher_side(distributions(3, 5).requires_grad_()).requires_grad


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

    without = soft_cross_entropy(logits[:3], labels[:3], torch.ones(3))
    torch.testing.assert_close(loss, without)
    assert torch.equal(gradient[3], torch.zeros(6))


@pytest.mark.parametrize(
    'function',
    [
        lambda values: soft_cross_entropy(values, values, values[:, 0]),
        lambda values: neighbour_labels(
            Neighbours(torch.arange(5).expand(4, 5), values), 5, 0.02
        ),
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
