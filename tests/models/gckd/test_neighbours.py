"""The lists after every update against brute force over all rows and columns."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.errors import InputError
from gckd_mm.models.gckd import neighbours as neighbour_lists
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.neighbours import NeighbourLists, Neighbours

DIM = 6


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
    assert torch.equal(found.index < 0, best == -torch.inf)
    # The entries are what they say, and no column is listed twice.
    row, place = (found.index >= 0).nonzero(as_tuple=True)
    theirs = similarity[row, found.index[row, place]]
    torch.testing.assert_close(theirs, best[row, place], rtol=0, atol=1e-6)
    for listed in found.index.tolist():
        real = [column for column in listed if column >= 0]
        assert len(set(real)) == len(real)


# Memories smaller than, equal to and larger than a list of 3 + 2.
@pytest.mark.parametrize('num_columns', [1, 3, 5, 6, 30])
@pytest.mark.parametrize('num_samples', [30, 200])
@pytest.mark.parametrize('surplus', [0, 2])
def test_two_memories_against_brute_force(
    num_columns: int, num_samples: int, surplus: int
) -> None:
    chance = random.Random(num_columns * num_samples)
    images, captions = EmbeddingMemory(num_columns, DIM), EmbeddingMemory(13, DIM)
    lists = NeighbourLists(13, k=3, surplus=surplus)
    for _ in range(40):
        # Now and then one of the memories stands still.
        new = [
            push(memory, chance.choices(range(num_samples), k=chance.choice(sizes)))
            for memory, sizes in ((captions, [0, 1, 2, 5]), (images, [0, 1, 3, 4, 20]))
        ]

        lists.update(captions.feats, images.feats, *new)

        check(lists.neighbours(), captions.feats, images.feats, 3, False)


@pytest.mark.parametrize('size', [1, 4, 5, 6, 7, 30])
@pytest.mark.parametrize('num_samples', [30, 200])
@pytest.mark.parametrize('surplus', [0, 2])
def test_one_memory_against_brute_force(
    size: int, num_samples: int, surplus: int
) -> None:
    chance = random.Random(size * num_samples)
    memory = EmbeddingMemory(size, DIM)
    lists = NeighbourLists(size, k=3, surplus=surplus, exclude_self=True)
    for _ in range(40):
        samples = chance.choices(range(num_samples), k=chance.choice([0, 1, 2, 3, 9]))
        slots = push(memory, samples)

        lists.update(memory.feats, memory.feats, slots, slots)

        check(lists.neighbours(), memory.feats, memory.feats, 3, True)


@pytest.mark.parametrize('chunk_size', [1, 100])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk_size) -> None:
    monkeypatch.setattr(neighbour_lists, '_CHUNK_SIZE', chunk_size)

    test_one_memory_against_brute_force(size=30, num_samples=200, surplus=2)


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
        self.search = neighbour_lists.nearest_neighbours
        monkeypatch.setattr(neighbour_lists, 'nearest_neighbours', self)

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


def test_a_surplus_saves_repairs() -> None:
    repaired = []
    for surplus in (0, 6, 18):
        torch.manual_seed(0)
        memory = EmbeddingMemory(64, DIM)
        lists = NeighbourLists(64, k=6, surplus=surplus, exclude_self=True)
        for start in range(0, 256, 4):
            slots = push(memory, list(range(start, start + 4)))
            lists.update(memory.feats, memory.feats, slots, slots)
        repaired.append(lists.num_repaired)

    assert repaired[0] > 2 * repaired[1] > 2 * repaired[2]


class LargestTensor(TorchDispatchMode):
    """Note the number of elements of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return result


def test_no_matrix_of_rows_by_columns_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_lists, '_CHUNK_SIZE', 4000)
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
        ({'k': 0}, 'got k=0'),
        ({'surplus': -1}, 'must not be negative, got -1'),
    ],
)
def test_impossible_lists_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NeighbourLists(**{'size': 5, 'k': 3, **changes})


def test_more_rows_than_lists_are_refused() -> None:
    rows = F.normalize(torch.randn(6, DIM), dim=1)
    with pytest.raises(ValueError, match='got 6 rows for 5 lists'):
        NeighbourLists(5, k=3).update(rows, rows, torch.arange(6), torch.arange(6))
