"""The k nearest neighbours against sorting, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.models.gckd.neighbours import nearest_neighbours


def embeddings(num: int, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(num, dim), dim=1)


def naive(
    queries: Tensor, keys: Tensor, k: int, exclude: list[int] | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """Sort all keys of each query in float64."""
    index, similarity = [], []
    for row, query in enumerate(queries.double()):
        pairs = [
            (float(query @ key), column)
            for column, key in enumerate(keys.double())
            if exclude is None or column != exclude[row]
        ]
        best = sorted(pairs, reverse=True)[:k]
        missing = k - len(best)
        index.append([column for _, column in best] + [-1] * missing)
        similarity.append([value for value, _ in best] + [-torch.inf] * missing)
    return index, similarity


@pytest.mark.parametrize('chunk_size', [1, 4, 4096])
@pytest.mark.parametrize(
    ('num_queries', 'num_keys', 'k'),
    [(9, 30, 5), (9, 5, 5), (9, 3, 5), (9, 1, 1), (9, 0, 2), (0, 30, 5)],
)
@pytest.mark.parametrize('excluding', [False, True])
def test_against_sorting(
    num_queries: int, num_keys: int, k: int, excluding: bool, chunk_size: int
) -> None:
    queries, keys = embeddings(num_queries), embeddings(num_keys)
    # Each query's best key, so that leaving one out always shows, and none for some.
    best, _ = naive(queries, keys, 1)
    exclude = [-1 if row % 3 == 2 else best[row][0] for row in range(num_queries)]
    index, similarity = naive(queries, keys, k, exclude if excluding else None)

    found = nearest_neighbours(
        queries,
        keys,
        k,
        torch.tensor(exclude, dtype=torch.int64) if excluding else None,
        chunk_size,
    )

    assert found.index.dtype == torch.int64
    assert found.similarity.dtype == torch.float32
    assert found.index.shape == found.similarity.shape == (num_queries, k)
    assert found.index.tolist() == index
    torch.testing.assert_close(
        found.similarity, torch.tensor(similarity).view(num_queries, k)
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_similarities_are_float32_also_under_autocast(dtype: torch.dtype) -> None:
    queries, keys = embeddings(9).to(dtype), embeddings(30).to(dtype)
    outside = nearest_neighbours(queries, keys, 5)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (queries.float() @ keys.float().t()).dtype == torch.bfloat16
        inside = nearest_neighbours(queries, keys, 5)

    assert torch.equal(inside.index, outside.index)
    assert torch.equal(inside.similarity, outside.similarity)
    _, similarity = naive(queries, keys, 5)
    torch.testing.assert_close(outside.similarity, torch.tensor(similarity))


def test_nothing_gets_a_gradient() -> None:
    found = nearest_neighbours(
        embeddings(4).requires_grad_(), embeddings(6).requires_grad_(), 2
    )

    assert not found.similarity.requires_grad


class LargestTensor(TorchDispatchMode):
    """Note the number of elements of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return result


def test_no_more_than_one_chunk_of_similarities_exists() -> None:
    queries, keys = embeddings(200), embeddings(300)

    with LargestTensor() as mode:
        nearest_neighbours(queries, keys, 3, torch.arange(200), chunk_size=10)

    assert mode.largest == 10 * 300
