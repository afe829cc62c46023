"""Conditional transport and prediction entropies against loops, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gckd_mm.models.uda.transport import prediction_entropies, transport_cost

FUNCTIONS = [
    transport_cost,
    lambda values, temperature: prediction_entropies(values, temperature)[0],
    lambda values, temperature: prediction_entropies(values, temperature)[1],
]
Function = Callable[[Tensor, float], Tensor]


def cosines(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1


def naive_softmax(row: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in row]
    return [weight / sum(weights) for weight in weights]


def naive_entropy(distribution: list[float]) -> float:
    return -sum(p * math.log(p) for p in distribution if p > 0)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('temperature', [0.02, 0.5])
def test_the_cost_against_a_loop(temperature: float, dtype: torch.dtype) -> None:
    similarity = cosines(4, 7).to(dtype)

    cost = transport_cost(similarity, temperature)

    total = 0.0
    for row in similarity.tolist():
        plan = naive_softmax(row, temperature)
        total += sum(p * (1 - s) for p, s in zip(plan, row, strict=True))
    assert cost.dtype == torch.promote_types(dtype, torch.float32)
    assert cost.item() == pytest.approx(total / 4, rel=1e-5)


def test_the_cost_lies_between_that_of_the_best_and_of_any_candidate() -> None:
    similarity = cosines(5, 8)

    best, any_one = (1 - similarity.amax(dim=1)).mean(), (1 - similarity).mean()

    torch.testing.assert_close(transport_cost(similarity, 1e-4), best)
    torch.testing.assert_close(
        transport_cost(similarity, 1e6), any_one, rtol=1e-5, atol=0
    )
    assert best < transport_cost(similarity, 0.1) < any_one


def test_descending_the_cost_brings_the_nearest_nearer() -> None:
    similarity = cosines(5, 8).requires_grad_()

    (gradient,) = torch.autograd.grad(transport_cost(similarity, 0.1), similarity)

    nearest = similarity.argmax(dim=1, keepdim=True)
    assert (gradient.gather(1, nearest) < 0).all()
    assert torch.equal(gradient.argmin(dim=1, keepdim=True), nearest)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('temperature', [0.05, 0.5])
def test_the_entropies_against_a_loop(temperature: float, dtype: torch.dtype) -> None:
    similarity = cosines(4, 7).to(dtype)

    each, marginal = prediction_entropies(similarity, temperature)

    rows = [naive_softmax(row, temperature) for row in similarity.tolist()]
    mean = [sum(column) / 4 for column in zip(*rows, strict=True)]
    expected = sum(naive_entropy(row) for row in rows) / 4
    assert each.dtype == marginal.dtype == torch.promote_types(dtype, torch.float32)
    assert each.item() == pytest.approx(expected, rel=1e-4)
    assert marginal.item() == pytest.approx(naive_entropy(mean), rel=1e-4)


def test_the_most_information_is_one_candidate_for_each() -> None:
    each, marginal = prediction_entropies(2 * torch.eye(5, 8) - 1, 0.01)

    assert each.item() == pytest.approx(0, abs=1e-6)
    assert marginal.item() == pytest.approx(math.log(5))


def test_a_hub_gives_no_information() -> None:
    """Neither where all choose the same, nor where none chooses."""
    for row in (cosines(1, 8), torch.zeros(1, 8)):
        each, marginal = prediction_entropies(row.expand(5, 8), 0.1)

        torch.testing.assert_close(each, marginal)


@pytest.mark.parametrize('function', FUNCTIONS)
def test_the_order_of_queries_and_candidates_is_nothing(function: Function) -> None:
    similarity = cosines(4, 6)
    rows, columns = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 1, 0, 4, 2, 3])

    torch.testing.assert_close(
        function(similarity[rows][:, columns], 0.2), function(similarity, 0.2)
    )


@pytest.mark.parametrize('function', FUNCTIONS)
def test_the_gradient(function: Function) -> None:
    similarity = cosines(3, 5).requires_grad_()

    assert torch.autograd.gradcheck(lambda values: function(values, 0.3), similarity)


@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('columns', [1, 6])
def test_the_sharpest_predictions_stay_finite(function: Function, columns: int) -> None:
    similarity = cosines(4, columns).float().requires_grad_()

    value = function(similarity, 1e-4)
    (gradient,) = torch.autograd.grad(value, similarity)

    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(function: Function, dtype: torch.dtype) -> None:
    similarity = cosines(4, 6).to(dtype)
    outside = function(similarity, 0.05)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = function(similarity, 0.05)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
