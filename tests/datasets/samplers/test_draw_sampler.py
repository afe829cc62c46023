"""One global stream of draws, for any number of ranks and workers."""

from __future__ import annotations

import itertools

import pytest
from torch.utils.data import DataLoader, Dataset

from gckd_mm.datasets import Draw
from gckd_mm.datasets.samplers import DrawSampler, draw_sampler


class Echo(Dataset):
    """Gives back the draw that it is asked for."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


class Positions(DrawSampler):
    """Its stream holds the positions themselves; it notes which are asked for."""

    def __init__(self, seed: int | None = 0) -> None:
        super().__init__(Echo(), seed)
        self.asked: list[int] = []

    def index_at(self, position: int) -> int:
        self.asked.append(position)
        return position


def take(sampler: DrawSampler, number: int) -> list[Draw]:
    return list(itertools.islice(sampler, number))


def as_rank(
    monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int, seed: int = 0
) -> Positions:
    monkeypatch.setattr(draw_sampler, 'get_dist_info', lambda: (rank, world_size))
    return Positions(seed)


def test_it_walks_the_stream() -> None:
    assert [draw.index for draw in take(Positions(), 25)] == list(range(25))


@pytest.mark.parametrize('world_size', [2, 3])
def test_the_ranks_interleave_to_one_stream(
    monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    alone = take(Positions(), 30 * world_size)

    ranks = [
        take(as_rank(monkeypatch, rank, world_size), 30) for rank in range(world_size)
    ]

    assert [draw for draws in zip(*ranks, strict=True) for draw in draws] == alone


@pytest.mark.parametrize('world_size', [1, 3])
@pytest.mark.parametrize('number', [0, 1, 17])
def test_skipping_equals_consuming(
    monkeypatch: pytest.MonkeyPatch, world_size: int, number: int
) -> None:
    for rank in range(world_size):
        consumed = take(as_rank(monkeypatch, rank, world_size), number + 20)[number:]

        skipping = as_rank(monkeypatch, rank, world_size)
        skipping.skip(number)

        assert take(skipping, 20) == consumed


def test_skipping_counts_from_the_beginning() -> None:
    sampler = Positions()
    sampler.skip(5)
    sampler.skip(7)

    assert take(sampler, 1)[0].index == 7


def test_skipping_asks_for_nothing_on_the_way() -> None:
    sampler = Positions()

    sampler.skip(10**9)
    take(sampler, 3)

    assert sampler.asked == [10**9, 10**9 + 1, 10**9 + 2]


def test_skipping_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match='must not be negative, got -1'):
        Positions().skip(-1)


def test_every_draw_has_its_own_augmentation_seed() -> None:
    seeds = [draw.seed for draw in take(Positions(), 2000)]

    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and seed >= 0 for seed in seeds)


def test_other_seeds_augment_otherwise() -> None:
    streams = [{draw.seed for draw in take(Positions(seed), 500)} for seed in range(4)]

    assert len(set.union(*streams)) > 1990
    assert {draw.seed for draw in take(Positions(0), 500)} == streams[0]


def test_a_seed_that_is_not_given_is_drawn_once() -> None:
    sampler = Positions(seed=None)

    assert isinstance(sampler.seed, int)
    assert take(sampler, 5) == take(Positions(sampler.seed), 5)


def test_iterating_again_begins_again() -> None:
    sampler = Positions()

    assert take(sampler, 5) == take(sampler, 5)


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    def batches(num_workers: int) -> list:
        loader = DataLoader(
            Echo(),
            batch_size=4,
            sampler=Positions(),
            num_workers=num_workers,
            collate_fn=list,
        )
        return list(itertools.islice(loader, 8))

    assert batches(workers) == batches(0)


def test_its_length_is_the_datasets() -> None:
    assert len(Positions()) == 10
