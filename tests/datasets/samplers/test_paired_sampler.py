"""Draws of labelled pairs, plain or P x K."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gckd_mm.datasets.samplers import PairedSampler, draw_sampler
from gckd_mm.errors import InputError


class Pairs:
    """As much of a dataset as the sampler may look at."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = np.array(pids)

    def __len__(self) -> int:
        return len(self.pids)


DATASET = Pairs([3, 3, 3, 8, 8, 8, 8, 5, 5, 0])


def indices(sampler: PairedSampler, number: int) -> list[int]:
    return [draw.index for draw in itertools.islice(sampler, number)]


def test_each_pass_holds_every_pair_once_in_a_new_order() -> None:
    drawn = indices(PairedSampler(DATASET, seed=0), 50)

    passes = [drawn[start : start + 10] for start in range(0, 50, 10)]
    assert all(sorted(one_pass) == list(range(10)) for one_pass in passes)
    assert len(set(map(tuple, passes))) == 5


def test_seeds_differ() -> None:
    streams = {tuple(indices(PairedSampler(DATASET, seed), 20)) for seed in range(5)}

    assert len(streams) == 5


@pytest.mark.parametrize('world_size', [1, 2])
def test_a_global_batch_holds_p_people_with_k_pairs(
    monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    ranks = []
    for rank in range(world_size):
        info = (rank, world_size)
        monkeypatch.setattr(draw_sampler, 'get_dist_info', lambda info=info: info)
        sampler = PairedSampler(DATASET, seed=0, num_instances=2)
        ranks.append(indices(sampler, 8 * 6 // world_size))

    drawn = [index for draws in zip(*ranks, strict=True) for index in draws]
    for start in range(0, len(drawn), 8):  # four people with two pairs each
        pids, counts = np.unique(
            DATASET.pids[drawn[start : start + 8]], return_counts=True
        )
        assert pids.tolist() == [0, 3, 5, 8]
        assert counts.tolist() == [2, 2, 2, 2]


def test_plain_shuffling_does_not_ask_who_is_who() -> None:
    drawn = indices(PairedSampler(Pairs([0] * 10), seed=0), 20)

    assert drawn == indices(PairedSampler(DATASET, seed=0), 20)


def test_runs_of_one_person_need_person_ids() -> None:
    with pytest.raises(InputError, match='for two domains use CrossDomainSampler'):
        PairedSampler([1, 2, 3], seed=0, num_instances=2)
