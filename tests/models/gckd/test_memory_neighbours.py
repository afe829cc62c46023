"""Each relation after every push against brute force over the memories."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gckd_mm.models.memory_neighbours import (
    OTHER_MODALITY,
    SEARCHED_RELATIONS,
    MemoryNeighbours,
)
from torch import Tensor, nn

from gckd_mm.models.gckd.memory import EmbeddingMemory

SIZE, DIM = 9, 5
#: longer and shorter lists than there are rows at first, and different ones
K = {
    ('images', 'near'): 3,
    ('captions', 'near'): 2,
    ('images', 'cross_domain'): 4,
    ('captions', 'cross_domain'): 1,
    ('images', 'cross_modal'): 2,
    ('captions', 'cross_modal'): 12,
}


def build_memories() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            f'{domain}_{modality}': EmbeddingMemory(SIZE, DIM)
            for domain in ('source', 'target')
            for modality in OTHER_MODALITY
        }
    )


def push(memories: nn.ModuleDict, generator: torch.Generator) -> dict[str, Tensor]:
    """Push new embeddings of some of 14 samples, more than fit, into each memory."""
    written = {}
    for number, (name, memory) in enumerate(memories.items()):
        count = 2 + number  # as many rows in no two memories
        keys = torch.randperm(14, generator=generator)[:count]
        feats = torch.randn(count, DIM, generator=generator)
        written[name] = memory.push(F.normalize(feats, dim=1), keys)
    return written


def naive_neighbours(
    rows: list[list[float]], columns: list[list[float]], k: int, exclude_self: bool
) -> list[list[int]]:
    found = []
    for i, row in enumerate(rows):
        scores = {
            j: sum(a * b for a, b in zip(row, column, strict=True))
            for j, column in enumerate(columns)
            if not (exclude_self and i == j)
        }
        best = sorted(scores, key=lambda j: -scores[j])[:k]
        found.append(best + [-1] * (k - len(best)))
    return found


def columns_of(modality: str, relation: str) -> str:
    return {
        'near': f'target_{modality}',
        'cross_domain': f'source_{modality}',
        'cross_modal': f'target_{OTHER_MODALITY[modality]}',
    }[relation]


def test_every_relation_after_every_push_against_brute_force() -> None:
    memories, neighbours = build_memories(), MemoryNeighbours(SIZE, K)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        neighbours.update(memories, push(memories, generator))
        for (modality, relation), k in K.items():
            rows = memories[f'target_{modality}'].feats
            columns = memories[columns_of(modality, relation)].feats

            found = neighbours.of(modality, relation)

            expected = naive_neighbours(
                rows.tolist(), columns.tolist(), k, relation == 'near'
            )
            assert found.index.tolist() == expected
            similarity = (rows[:, None] * columns[found.index]).sum(dim=2)
            similarity = similarity.masked_fill(found.index < 0, -torch.inf)
            torch.testing.assert_close(found.similarity, similarity)


def test_some_rows_and_fewer_neighbours_are_a_part_of_the_whole() -> None:
    memories, neighbours = build_memories(), MemoryNeighbours(SIZE, K)
    generator = torch.Generator().manual_seed(0)
    neighbours.update(memories, push(memories, generator))
    rows = torch.tensor([2, 0, 2])
    for modality, relation in K:
        whole = neighbours.of(modality, relation)

        part = neighbours.of(modality, relation, rows, k=2)

        assert torch.equal(part.index, whole.index[rows, :2])
        assert torch.equal(part.similarity, whole.similarity[rows, :2])


@pytest.mark.parametrize('relation', SEARCHED_RELATIONS)
def test_only_what_is_asked_for_is_kept(relation: str) -> None:
    asked = {('images', relation): 2, ('captions', relation): 0}
    memories, neighbours = build_memories(), MemoryNeighbours(SIZE, asked)

    neighbours.update(memories, push(memories, torch.Generator().manual_seed(0)))

    assert set(neighbours.lists) == {f'images_{relation}'}
    assert {name.split('.')[1] for name in neighbours.state_dict()} == {
        f'images_{relation}'
    }


def test_a_modality_that_was_never_pushed_has_and_is_no_neighbour() -> None:
    memories, neighbours = build_memories(), MemoryNeighbours(SIZE, K)
    none = torch.zeros(0, dtype=torch.int64)
    feats = F.normalize(torch.randn(4, DIM), dim=1)
    written = dict.fromkeys(memories, none)
    written['target_images'] = memories['target_images'].push(feats, torch.arange(4))

    neighbours.update(memories, written)

    assert (neighbours.of('images', 'near').index >= 0).all()
    assert (neighbours.of('images', 'cross_modal').index == -1).all()
    assert neighbours.of('captions', 'cross_modal').index.shape == (0, 12)


def test_a_reset_forgets_everything() -> None:
    memories, neighbours = build_memories(), MemoryNeighbours(SIZE, K)
    neighbours.update(memories, push(memories, torch.Generator().manual_seed(0)))

    neighbours.reset()

    fresh = MemoryNeighbours(SIZE, K).state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in neighbours.state_dict().items())
