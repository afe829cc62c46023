"""The memory against a model of it in plain Python."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import EmbeddingMemory
from tests.training import on_ranks


class NaiveMemory:
    """Lists of slots, and loops."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.slots: list[tuple[int, list[float]] | None] = [None] * size
        # The filled slots, those pushed to longest ago first.
        self.age: list[int] = []

    def push(self, feats: list[list[float]], keys: list[int]) -> list[int]:
        latest: dict[int, tuple[int, list[float]]] = {}
        for feat, key in zip(feats, keys, strict=True):
            latest.pop(key, None)
            latest[key] = (key, feat)
        kept = dict(list(latest.items())[-self.size :])
        slots = {
            entry[0]: slot
            for slot, entry in enumerate(self.slots)
            if entry is not None and entry[0] in kept
        }
        for slot in slots.values():
            self.age.remove(slot)
        empty = [slot for slot, entry in enumerate(self.slots) if entry is None]
        for key in kept:
            if key not in slots:
                slots[key] = empty.pop(0) if empty else self.age.pop(0)
        for key, entry in kept.items():
            self.slots[slots[key]] = entry
            self.age.append(slots[key])
        return [slots.get(key, -1) for key in keys]


def batch(keys: list[int], dim: int = 3) -> tuple[Tensor, Tensor]:
    """Random embeddings of these samples."""
    return torch.randn(len(keys), dim), torch.tensor(keys)


@pytest.mark.parametrize('size', [1, 2, 7, 16])
@pytest.mark.parametrize('num_samples', [5, 16, 200])
def test_random_pushes_against_the_naive_memory(size: int, num_samples: int) -> None:
    chance = random.Random(size * num_samples)
    memory, naive = EmbeddingMemory(size, 3), NaiveMemory(size)
    for _ in range(60):
        keys = chance.choices(range(num_samples), k=chance.choice([1, 2, 3, 5, 20]))
        feats, keys = batch(keys)

        slots = memory.push(feats, keys)

        assert slots.tolist() == naive.push(feats.tolist(), keys.tolist())
        filled = [entry for entry in naive.slots if entry is not None]
        assert len(memory) == len(filled)
        assert memory.keys.tolist() == [key for key, _ in filled]
        assert memory.feats.tolist() == [feat for _, feat in filled]


def test_a_memory_as_large_as_the_train_set_comes_to_hold_it() -> None:
    memory = EmbeddingMemory(50, 3)
    latest = {}
    for epoch in range(2):
        for keys in torch.randperm(50).split(8):
            feats, keys = batch(keys.tolist())
            memory.push(feats, keys)
            latest.update(zip(keys.tolist(), feats.tolist(), strict=True))
        assert sorted(memory.keys.tolist()) == list(range(50)), epoch
        held = dict(zip(memory.keys.tolist(), memory.feats.tolist(), strict=True))
        assert held == latest


def test_the_samples_pushed_longest_ago_leave_first() -> None:
    memory = EmbeddingMemory(4, 3)
    memory.push(*batch([10, 11, 12, 13]))

    # 10 becomes the most recent, which leaves 11 as the oldest.
    assert memory.push(*batch([10])).tolist() == [0]
    assert memory.push(*batch([14, 15])).tolist() == [1, 2]
    assert memory.push(*batch([16, 17])).tolist() == [3, 0]


def test_embeddings_are_kept_in_float32_without_gradient() -> None:
    memory = EmbeddingMemory(4, 3)
    feats = torch.randn(2, 3, dtype=torch.bfloat16).requires_grad_()

    memory.push(feats, torch.tensor([0, 1]))

    assert memory.feats.dtype == torch.float32
    assert not memory.feats.requires_grad
    assert torch.equal(memory.feats, feats.detach().float())


def test_the_filled_part_is_not_copied() -> None:
    memory = EmbeddingMemory(8, 3)
    memory.push(*batch([0, 1, 2]))

    for view, buffer in (
        (memory.feats, memory.slot_feats),
        (memory.keys, memory.slot_keys),
    ):
        assert len(view) == 3
        assert view.data_ptr() == buffer.data_ptr()


def test_the_slots_written_since_a_moment() -> None:
    chance = random.Random(0)
    memory = EmbeddingMemory(8, 3)
    moments = [(memory.num_pushed.clone(), memory.slot_feats.clone())]
    for num in (3, 2, 0, 6, 1, 4, 30):  # the last one more than there are slots
        memory.push(*batch(chance.choices(range(20), k=num)))
        for moment, feats in moments:
            # No two random embeddings are equal.
            changed = (memory.slot_feats != feats).any(dim=1).nonzero().flatten()
            assert torch.equal(memory.written_since(moment), changed)
        moments.append((memory.num_pushed.clone(), memory.slot_feats.clone()))


def test_an_empty_push_changes_nothing() -> None:
    memory = EmbeddingMemory(4, 3)
    memory.push(*batch([0, 1]))
    before = {name: value.clone() for name, value in memory.state_dict().items()}

    slots = memory.push(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))

    assert slots.shape == (0,)
    torch.testing.assert_close(memory.state_dict(), before, rtol=0, atol=0)


def test_pushing_after_a_reload_equals_pushing_without() -> None:
    chance = random.Random(0)
    pushes = [batch(chance.choices(range(30), k=5)) for _ in range(20)]
    memory = EmbeddingMemory(12, 3)
    for push in pushes[:10]:
        memory.push(*push)
    resumed = EmbeddingMemory(12, 3)
    resumed.load_state_dict(memory.state_dict())

    for push in pushes[10:]:
        assert torch.equal(resumed.push(*push), memory.push(*push))

    torch.testing.assert_close(
        resumed.state_dict(), memory.state_dict(), rtol=0, atol=0
    )


def test_a_reset_memory_is_a_new_one() -> None:
    memory = EmbeddingMemory(4, 3)
    memory.push(*batch([0, 1, 2, 3, 4, 5]))

    memory.reset()

    assert len(memory) == 0
    torch.testing.assert_close(
        memory.state_dict(), EmbeddingMemory(4, 3).state_dict(), rtol=0, atol=0
    )


def test_four_real_memories_fit_in_300_megabytes() -> None:
    with torch.device('meta'):
        memories = [EmbeddingMemory(65_536, 256) for _ in range(4)]

    assert (
        sum(buffer.nbytes for memory in memories for buffer in memory.buffers())
        <= 300e6
    )


@pytest.mark.parametrize(
    ('size', 'dim', 'message'), [(0, 3, 'got size=0'), (3, 0, 'dim=0')]
)
def test_a_memory_of_nothing_is_refused(size: int, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingMemory(size, dim)


def test_another_dimension_is_refused() -> None:
    message = r'holds 128 numbers an embedding, got 64: the two towers, .* must agree'
    with pytest.raises(InputError, match=message):
        EmbeddingMemory(4, 128).push(torch.randn(2, 64), torch.tensor([0, 1]))


def test_rows_without_a_key_are_refused() -> None:
    with pytest.raises(ValueError, match='got 2 embeddings and 1 keys'):
        EmbeddingMemory(4, 3).push(torch.randn(2, 3), torch.tensor([0]))


def _push_on_this_rank(pushes: list, folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    memory = EmbeddingMemory(12, 3)
    slots = [
        memory.push(*(part.chunk(2)[rank] for part in (feats, keys)))
        for feats, keys in pushes
    ]
    torch.save({'slots': slots, 'state': memory.state_dict()}, folder / f'{rank}.pth')


def test_two_ranks_hold_what_one_process_holds(tmp_path: Path) -> None:
    chance = random.Random(0)
    # Samples met on both ranks at once, and more of them than slots, among them.
    pushes = [
        batch(chance.choices(range(40), k=num)) for num in (2, 4, 6, 6, 6, 30, 4, 6)
    ]
    memory = EmbeddingMemory(12, 3)
    expected = {'slots': [memory.push(*push) for push in pushes]}
    expected['state'] = memory.state_dict()

    on_ranks(_push_on_this_rank, 2, pushes, tmp_path)

    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth')
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
