"""Endless index streams: whole passes, random access, P x K runs."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from gckd_mm.datasets.samplers.streams import IdentityStream, ShuffledStream

PIDS = np.array([4, 4, 9, 1, 4, 9, 1, 1, 1, 30, 4, 4])


def take(stream, stop: int, start: int = 0) -> list[int]:
    return [stream[position] for position in range(start, stop)]


@pytest.mark.parametrize('size', [1, 2, 7, 100])
def test_each_pass_holds_every_index_once(size: int) -> None:
    stream = ShuffledStream(size, seed=0, name=1)

    for number in range(5):
        one_pass = take(stream, (number + 1) * size, number * size)
        assert sorted(one_pass) == list(range(size))


def test_each_pass_has_its_own_order() -> None:
    stream = ShuffledStream(50, seed=0, name=1)

    passes = {tuple(take(stream, start + 50, start)) for start in range(0, 500, 50)}

    assert len(passes) == 10
    assert tuple(range(50)) not in passes


def test_without_shuffling_the_order_is_natural() -> None:
    stream = ShuffledStream(3, seed=0, name=1, shuffle=False)

    assert take(stream, 7) == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(('seed', 'name'), [(0, 1), (0, 2), (1, 1), (2**63, 1)])
def test_a_stream_is_a_function_of_seed_and_name(seed: int, name: int) -> None:
    expected = take(ShuffledStream(50, seed=5, name=3), 150)

    assert take(ShuffledStream(50, seed, name), 150) != expected
    assert take(ShuffledStream(50, 5, 3), 150) == expected


@pytest.mark.parametrize(
    'make',
    [
        lambda: ShuffledStream(len(PIDS), seed=0, name=1),
        lambda: IdentityStream(PIDS, num_instances=3, seed=0, name=1),
    ],
)
def test_any_entry_can_be_asked_for_alone(make) -> None:
    in_order = take(make(), 200)

    backwards = make()
    assert [backwards[position] for position in reversed(range(200))] == in_order[::-1]
    assert [make()[position] for position in range(0, 200, 17)] == in_order[::17]


@pytest.mark.parametrize(
    'stream',
    [
        ShuffledStream(100, seed=0, name=1),
        IdentityStream(PIDS, num_instances=3, seed=0, name=1),
    ],
)
def test_a_far_entry_costs_no_walk(stream) -> None:
    began = time.perf_counter()

    assert stream[10**12] >= 0

    assert time.perf_counter() - began < 1  # 10^10 passes would take hours


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(ValueError, match='at least one index, got size 0'):
        ShuffledStream(0, seed=0, name=1)


def test_no_instances_are_refused() -> None:
    with pytest.raises(ValueError, match='num_instances must be at least 1, got 0'):
        IdentityStream(PIDS, num_instances=0, seed=0, name=1)


@pytest.mark.parametrize('instances', [1, 2, 4, 7])
def test_runs_of_k_of_one_person(instances: int) -> None:
    people = len(set(PIDS.tolist()))
    stream = IdentityStream(PIDS, instances, seed=0, name=1)

    for number in range(4):  # passes over the people
        start = number * people * instances
        indices = take(stream, start + people * instances, start)
        runs = [
            indices[first : first + instances]
            for first in range(0, len(indices), instances)
        ]
        owners = [{int(PIDS[index]) for index in run} for run in runs]
        assert all(len(owner) == 1 for owner in owners)
        assert sorted(owner.pop() for owner in owners) == sorted(set(PIDS.tolist()))


@pytest.mark.parametrize('instances', [2, 3, 7, 12])
def test_samples_repeat_as_evenly_as_they_can(instances: int) -> None:
    sizes = Counter(PIDS.tolist())
    stream = IdentityStream(PIDS, instances, seed=0, name=1)

    for turn in range(20):
        run = take(stream, (turn + 1) * instances, turn * instances)
        size = sizes[int(PIDS[run[0]])]
        counts = Counter(run)
        assert len(counts) == min(size, instances)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_every_sample_of_a_person_is_reached() -> None:
    stream = IdentityStream(PIDS, num_instances=2, seed=0, name=1)

    assert set(take(stream, 4 * 2 * 30)) == set(range(len(PIDS)))


def test_people_come_in_a_new_order_each_pass() -> None:
    stream = IdentityStream(np.arange(30), num_instances=1, seed=0, name=1)

    assert take(stream, 30) != take(stream, 60, 30)


def test_people_and_their_samples_are_drawn_independently() -> None:
    # One pass over as many people as each has samples: the order of the people must
    # not be the order of the first person's samples.
    size = 40
    pids = np.repeat(np.arange(size), size)
    stream = IdentityStream(pids, num_instances=size, seed=0, name=1)

    indices = np.array(take(stream, size * size)).reshape(size, size)
    people, first_samples = pids[indices[:, 0]], indices[0] % size

    assert (people == first_samples).mean() < 0.5
