"""The weights of neighbours and their average, against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.necks.graph_propagation_neck import (
    neighbour_average,
    neighbour_weights,
)

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


def test_a_row_without_neighbours_has_no_average() -> None:
    assert not neighbour_average(embeddings(7), graph(), 0.1)[3].any()


def test_weights_are_a_distribution_over_those_that_are_there() -> None:
    weights = neighbour_weights(graph(), 0.1)

    assert torch.equal(weights == 0, torch.tensor(INDEX) < 0)
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1, 1, 0, 1])


@pytest.mark.parametrize('slots', [0, 2])
@pytest.mark.parametrize('rows', [0, 3])
def test_no_senders_and_no_receivers(rows: int, slots: int) -> None:
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
