"""Streams that are independent of order, processes and versions."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import numpy as np
import pytest

from gckd_mm.synthpedes.random_stream import RandomStream


def test_a_path_names_a_stream() -> None:
    first = [RandomStream('a', 1).uniform() for _ in range(2)]
    assert first[0] == first[1]
    assert RandomStream('a', 1).uniform() != RandomStream('a', 2).uniform()
    parent = RandomStream('a')
    parent.uniform()
    assert parent.child(1).uniform() == first[0]


def test_builds_on_what_python_promises_never_to_change() -> None:
    stream = RandomStream('a', 1)
    assert stream.uniform() == random.Random('a/1').random()


def test_normal_numbers_add_up_in_the_order_of_drawing() -> None:
    stream, dice = RandomStream('a', 1), random.Random('a/1')
    for _ in range(200):
        total = -6.0
        for _ in range(12):
            total = total + dice.random()
        assert stream.normal(3, 2) == 3 + 2 * total


@pytest.mark.parametrize('weights', [{}, {'a': 0, 'b': 0.0}, {'a': 0, 'b': -1}])
def test_weights_must_weigh(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match='no option has a positive weight'):
        RandomStream('a').weighted(weights)


def test_moments() -> None:
    stream = RandomStream('moments')
    uniform = [stream.uniform(2, 6) for _ in range(4000)]
    assert min(uniform) >= 2
    assert max(uniform) < 6
    assert np.mean(uniform) == pytest.approx(4, abs=0.1)
    normal = [stream.normal(3, 2) for _ in range(4000)]
    assert np.mean(normal) == pytest.approx(3, abs=0.15)
    assert np.std(normal) == pytest.approx(2, abs=0.1)


def test_integers_reach_both_ends_equally_often() -> None:
    stream = RandomStream('integers')
    counts = Counter(stream.integer(1, 4) for _ in range(4000))
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 850


def test_chance_and_choices() -> None:
    stream = RandomStream('chances')
    assert 0.22 < np.mean([stream.chance(0.25) for _ in range(4000)]) < 0.28
    assert not stream.chance(0)
    assert stream.chance(1)
    counts = Counter(stream.weighted({'a': 1, 'b': 3, 'c': 0}) for _ in range(4000))
    assert set(counts) == {'a', 'b'}
    assert counts['b'] / counts['a'] == pytest.approx(3, rel=0.15)
    assert {stream.choice('xyz') for _ in range(100)} == set('xyz')


def test_shuffling_gives_every_order_equally_often() -> None:
    stream = RandomStream('orders')
    counts = Counter(tuple(stream.shuffled('abc')) for _ in range(3000))
    assert len(counts) == 6
    assert min(counts.values()) > 400


def test_noise_is_nearly_normal() -> None:
    noise = RandomStream('noise').noise(200, 101, 3)
    assert noise.shape == (200, 101, 3)
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(noise) < 1) == pytest.approx(0.683, abs=0.02)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02


def test_noise_is_the_same_on_every_machine() -> None:
    """The four-byte sums, taken from the raw words by plain arithmetic."""
    seed = int(random.Random('a').random() * 2**53)
    words = np.random.PCG64(seed).random_raw(3)
    octets = [(int(word) >> shift) & 255 for word in words for shift in range(0, 64, 8)]
    sums = [sum(octets[i : i + 4]) - 510 for i in range(0, 20, 4)]
    expected = np.array(sums, np.float32) / np.float32(147.8)
    found = RandomStream('a').noise(5)
    assert hashlib.sha256(found).digest() == hashlib.sha256(expected).digest()
