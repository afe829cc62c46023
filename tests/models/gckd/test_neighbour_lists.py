"""The nearest neighbours against sorting, and the lists after every update."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.errors import InputError
from gckd_mm.models.gckd import memory as module
from gckd_mm.models.gckd.memory import (
    EmbeddingMemory,
    NeighbourLists,
    Neighbours,
    nearest_neighbours,
)

DIM = 6


def unit(num: int, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(num, dim), dim=1)


def sorted_keys(
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
def test_nearest_neighbours_against_sorting(
    num_queries: int, num_keys: int, k: int, excluding: bool, chunk_size: int
) -> None:
    queries, keys = unit(num_queries), unit(num_keys)
    # Each query's best key, so that leaving one out always shows, and none for some.
    best, _ = sorted_keys(queries, keys, 1)
    exclude = [-1 if row % 3 == 2 else best[row][0] for row in range(num_queries)]
    index, similarity = sorted_keys(queries, keys, k, exclude if excluding else None)

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
def test_nearest_neighbours_are_float32_also_under_autocast(dtype: torch.dtype) -> None:
    queries, keys = unit(9).to(dtype), unit(30).to(dtype)
    outside = nearest_neighbours(queries, keys, 5)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (queries.float() @ keys.float().t()).dtype == torch.bfloat16
        inside = nearest_neighbours(queries, keys, 5)

    assert torch.equal(inside.index, outside.index)
    assert torch.equal(inside.similarity, outside.similarity)
    _, similarity = sorted_keys(queries, keys, 5)
    torch.testing.assert_close(outside.similarity, torch.tensor(similarity))


def test_nothing_gets_a_gradient() -> None:
    found = nearest_neighbours(unit(4).requires_grad_(), unit(6).requires_grad_(), 2)

    assert not found.similarity.requires_grad


def push(memory: EmbeddingMemory, samples: list[int]) -> Tensor:
    """Push embeddings near those that the samples had; return the slots."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(256, memory.dim, generator=generator)
    feats = centres[samples] + 0.3 * torch.randn(len(samples), memory.dim)
    keys = torch.tensor(samples, dtype=torch.int64)
    return memory.push(F.normalize(feats, dim=1), keys)


def check(
    found: Neighbours, rows: Tensor, columns: Tensor, k: int, exclude_self: bool
) -> None:
    """Compare with sorting all similarities."""
    similarity = rows @ columns.t()
    if exclude_self:
        similarity.fill_diagonal_(-torch.inf)
    best = similarity.sort(dim=1, descending=True).values[:, :k]
    best = F.pad(best, (0, k - best.shape[1]), value=-torch.inf)
    torch.testing.assert_close(found.similarity, best, rtol=0, atol=1e-6)

    assert found.index.dtype == torch.int64
    assert found.index.shape == (len(rows), k)
    assert torch.equal(found.index < 0, best == -torch.inf)
    # The entries are what they say, and no column is listed twice.
    row, place = (found.index >= 0).nonzero(as_tuple=True)
    theirs = similarity[row, found.index[row, place]]
    torch.testing.assert_close(theirs, best[row, place], rtol=0, atol=1e-6)
    for listed in found.index.tolist():
        real = [column for column in listed if column >= 0]
        assert len(set(real)) == len(real)


# Memories smaller than, equal to and larger than a list of 2 · 3.
@pytest.mark.parametrize('num_columns', [1, 3, 6, 7, 30])
@pytest.mark.parametrize('num_samples', [30, 200])
def test_two_memories_against_brute_force(num_columns: int, num_samples: int) -> None:
    chance = random.Random(num_columns * num_samples)
    images, captions = EmbeddingMemory(num_columns, DIM), EmbeddingMemory(13, DIM)
    lists = NeighbourLists(13, k=3)
    for _ in range(40):
        # Now and then one of the memories stands still.
        new = [
            push(memory, chance.choices(range(num_samples), k=chance.choice(sizes)))
            for memory, sizes in ((captions, [0, 1, 2, 5]), (images, [0, 1, 3, 4, 20]))
        ]

        lists.update(captions.feats, images.feats, *new)

        check(lists.neighbours(), captions.feats, images.feats, 3, False)


@pytest.mark.parametrize('size', [1, 4, 6, 7, 8, 30])
@pytest.mark.parametrize('num_samples', [30, 200])
def test_one_memory_against_brute_force(size: int, num_samples: int) -> None:
    chance = random.Random(size * num_samples)
    memory = EmbeddingMemory(size, DIM)
    lists = NeighbourLists(size, k=3, exclude_self=True)
    for _ in range(40):
        samples = chance.choices(range(num_samples), k=chance.choice([0, 1, 2, 3, 9]))
        slots = push(memory, samples)

        lists.update(memory.feats, memory.feats, slots, slots)

        check(lists.neighbours(), memory.feats, memory.feats, 3, True)


@pytest.mark.parametrize('chunk_size', [1, 100])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk_size) -> None:
    monkeypatch.setattr(module, '_CHUNK_SIZE', chunk_size)

    test_one_memory_against_brute_force(size=30, num_samples=200)


def test_lists_may_start_beside_memories_that_are_filled() -> None:
    images, captions = EmbeddingMemory(20, DIM), EmbeddingMemory(12, DIM)
    push(images, list(range(15)))
    push(captions, list(range(12)))
    lists = NeighbourLists(12, k=3)
    new = push(captions, [3]), push(images, [40, 2])

    lists.update(captions.feats, images.feats, *new)

    check(lists.neighbours(), captions.feats, images.feats, 3, False)


def test_asking_for_some_rows() -> None:
    memory = EmbeddingMemory(10, DIM)
    lists = NeighbourLists(10, k=3, exclude_self=True)
    slots = push(memory, list(range(8)))
    lists.update(memory.feats, memory.feats, slots, slots)

    every, some = lists.neighbours(), lists.neighbours(torch.tensor([5, -1, 0, 5]))

    assert len(every.index) == 8
    assert torch.equal(some.index[[0, 2, 3]], every.index[[5, 0, 5]])
    assert torch.equal(some.similarity[[0, 2, 3]], every.similarity[[5, 0, 5]])
    assert some.index[1].tolist() == [-1] * 3
    assert some.similarity[1].tolist() == [-torch.inf] * 3


def test_the_order_of_the_columns_slots_is_nothing() -> None:
    chance = random.Random(0)
    rows, columns = F.normalize(torch.randn(2, 40, DIM), dim=2)
    order = torch.randperm(40)
    place = order.argsort()
    lists, permuted = NeighbourLists(40, k=3), NeighbourLists(40, k=3)
    everywhere = torch.arange(40)
    lists.update(rows, columns, everywhere, everywhere)
    permuted.update(rows, columns[order], everywhere, everywhere)
    for _ in range(30):
        written = torch.tensor(chance.sample(range(40), k=4))
        columns[written] = F.normalize(torch.randn(4, DIM), dim=1)
        nothing = written[:0]

        lists.update(rows, columns, nothing, written)
        permuted.update(rows, columns[order], nothing, place[written])

        expected, found = lists.neighbours(), permuted.neighbours()
        torch.testing.assert_close(found.similarity, expected.similarity)
        assert torch.equal(order[found.index], expected.index)
    assert lists.num_repaired == permuted.num_repaired


class Searches:
    """Stands in for the search by brute force, and counts its queries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_queries = 0
        self.search = module.nearest_neighbours
        monkeypatch.setattr(module, 'nearest_neighbours', self)

    def __call__(self, queries: Tensor, *args, **kwargs) -> Neighbours:
        self.num_queries += len(queries)
        return self.search(queries, *args, **kwargs)


def test_few_rows_are_searched_in_full_once_the_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, num_updates, num_new = 256, 50, 8
    memory = EmbeddingMemory(size, 16)
    lists = NeighbourLists(size, k=6, exclude_self=True)

    def update() -> None:
        feats = F.normalize(torch.randn(num_new, 16), dim=1)
        slots = memory.push(feats, torch.arange(num_new) + int(memory.num_pushed))
        lists.update(memory.feats, memory.feats, slots, slots)

    for _ in range(2 * size // num_new):
        update()
    searches = Searches(monkeypatch)
    lists.num_repaired = 0
    for _ in range(num_updates):
        update()

    assert searches.num_queries == num_updates * num_new + lists.num_repaired
    # The written rows are 3 % of the memory: less than as much again is repaired.
    assert lists.num_repaired < num_updates * num_new
    check(lists.neighbours(), memory.feats, memory.feats, 6, True)


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
    queries, keys = unit(200), unit(300)

    with LargestTensor() as mode:
        nearest_neighbours(queries, keys, 3, torch.arange(200), chunk_size=10)

    assert mode.largest == 10 * 300


def test_no_matrix_of_rows_by_columns_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_CHUNK_SIZE', 4000)
    memory = EmbeddingMemory(400, DIM)
    lists = NeighbourLists(400, k=3, exclude_self=True)

    with LargestTensor() as mode:
        # The first update searches all rows, the second few.
        for samples in (list(range(256)), list(range(20))):
            slots = push(memory, samples)
            lists.update(memory.feats, memory.feats, slots, slots)

    assert mode.largest <= 4000


def test_updating_after_a_reload_equals_updating_without() -> None:
    chance = random.Random(0)
    memory = EmbeddingMemory(20, DIM)
    lists = NeighbourLists(20, k=3, exclude_self=True)
    resumed = NeighbourLists(20, k=3, exclude_self=True)
    for step in range(40):
        slots = push(memory, chance.choices(range(200), k=3))
        lists.update(memory.feats, memory.feats, slots, slots)
        if step < 20:
            resumed.load_state_dict(lists.state_dict())
        else:
            resumed.update(memory.feats, memory.feats, slots, slots)

        torch.testing.assert_close(
            resumed.state_dict(), lists.state_dict(), rtol=0, atol=0
        )


def test_similarities_are_float32_also_under_autocast() -> None:
    lists, inside = NeighbourLists(20, k=3), NeighbourLists(20, k=3)
    rows, columns = F.normalize(torch.randn(2, 20, DIM), dim=2)
    for written in torch.arange(20).split(5):
        slots = written, written
        held = written[-1] + 1
        lists.update(rows[:held], columns[:held], *slots)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            inside.update(rows[:held], columns[:held], *slots)

    torch.testing.assert_close(inside.state_dict(), lists.state_dict(), rtol=0, atol=0)


def test_reset_lists_are_new_ones() -> None:
    memory = EmbeddingMemory(20, DIM)
    lists = NeighbourLists(20, k=3, exclude_self=True)
    for _ in range(10):
        slots = push(memory, random.Random(0).choices(range(200), k=9))
        lists.update(memory.feats, memory.feats, slots, slots)

    lists.reset()

    assert len(lists.neighbours().index) == 0
    assert lists.num_repaired == 0
    fresh = NeighbourLists(20, k=3, exclude_self=True)
    torch.testing.assert_close(lists.state_dict(), fresh.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'size': 0}, 'got size=0'),
        ({'k': 0}, 'k=0'),
    ],
)
def test_impossible_lists_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NeighbourLists(**{'size': 5, 'k': 3, **changes})


def test_more_rows_than_lists_are_refused() -> None:
    rows = F.normalize(torch.randn(6, DIM), dim=1)
    with pytest.raises(ValueError, match='got 6 rows for 5 lists'):
        NeighbourLists(5, k=3).update(rows, rows, torch.arange(6), torch.arange(6))
