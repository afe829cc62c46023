"""The Jaccard distance of k-reciprocal neighbours against sets, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.functional.reciprocal import ClosePairs, close_pairs

#: nearly all pairs that have anything in common
_ALL = 0.9999


def groups(num: int, size: int = 4, dim: int = 6, noise: float = 0.35) -> Tensor:
    """Embeddings around one centre for each ``size`` of them."""
    centres = torch.randn(math.ceil(num / size), dim).repeat_interleave(size, 0)[:num]
    return F.normalize(F.normalize(centres, dim=1) + noise * torch.randn(num, dim))


def naive_sets(feats: Tensor, k1: int) -> tuple[list[list[int]], list[set[int]]]:
    """Return each row's ranking, itself first, and its expanded reciprocal set."""
    similarity = feats.double() @ feats.double().t()
    num = len(feats)
    ranking = [
        [
            i,
            *sorted(set(range(num)) - {i}, key=lambda j, i=i: -float(similarity[i, j])),
        ]
        for i in range(num)
    ]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    sets = []
    for i in range(num):
        first = reciprocal(i, k1)
        grown = set(first)
        for j in first:
            half = reciprocal(j, round(k1 / 2))
            if len(first & half) >= 2 / 3 * len(half) - 1e-9:
                grown |= half
        sets.append(grown)
    return ranking, sets


def naive(feats: Tensor, k1: int, k2: int) -> dict[tuple[int, int], float]:
    ranking, sets = naive_sets(feats, k1)
    num = len(feats)
    weights = []
    for i in range(num):
        raw = {
            j: math.exp(-float((feats[i].double() - feats[j].double()).square().sum()))
            for j in sets[i]
        }
        weights.append({j: each / sum(raw.values()) for j, each in raw.items()})
    averaged = []
    for i in range(num):
        heard = ranking[i][:k2]
        members = set().union(*(weights[n] for n in heard))
        averaged.append(
            {j: sum(weights[n].get(j, 0) for n in heard) / len(heard) for j in members}
        )
    distances = {}
    for i, one in enumerate(averaged):
        for j, other in enumerate(averaged):
            both = one.keys() | other.keys()
            smaller = sum(min(one.get(n, 0), other.get(n, 0)) for n in both)
            larger = sum(max(one.get(n, 0), other.get(n, 0)) for n in both)
            distances[i, j] = 1 - smaller / larger
    return distances


def as_dict(pairs: ClosePairs) -> dict[tuple[int, int], float]:
    rows, columns, distances = (part.tolist() for part in pairs)
    return dict(zip(zip(rows, columns, strict=True), distances, strict=True))


@pytest.mark.parametrize(
    ('num', 'k1', 'k2'), [(40, 6, 3), (40, 7, 1), (40, 2, 6), (140, 5, 2), (6, 30, 9)]
)
@pytest.mark.parametrize('radius', [0.5, _ALL])
def test_against_sets(num: int, k1: int, k2: int, radius: float) -> None:
    feats = groups(num)
    expected = {
        pair: distance
        for pair, distance in naive(feats, k1, k2).items()
        if distance <= radius
    }

    found = as_dict(close_pairs(feats, k1, k2, radius))

    assert found.keys() == expected.keys()
    assert len(found) > num, 'only pairs of a sample with itself were compared'
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_example_has_sets_that_grow_and_neighbours_that_are_not_mutual() -> None:
    feats = groups(40)
    ranking, sets = naive_sets(feats, 6)

    assert any(grown - set(ranking[i][:7]) for i, grown in enumerate(sets))
    assert any(set(ranking[i][:7]) - grown for i, grown in enumerate(sets))


def test_pairs_are_in_order_and_symmetric_to_the_bit() -> None:
    pairs = close_pairs(groups(100), 8, 3, _ALL)

    keys = pairs.rows * 100 + pairs.columns
    assert (keys.diff() > 0).all()
    found = as_dict(pairs)
    assert all(found[j, i] == distance for (i, j), distance in found.items())


def test_groups_far_apart_have_no_pair() -> None:
    # Each is all that its members can be reciprocal with.
    feats = F.normalize(
        torch.eye(5).repeat_interleave(4, 0) + 0.01 * torch.randn(20, 5)
    )

    pairs = close_pairs(feats, 3, 2, 0.9)

    assert torch.equal(pairs.rows // 4, pairs.columns // 4)
    assert len(pairs.rows) == 5 * 4 * 4


def test_the_order_of_the_samples_does_not_matter() -> None:
    feats, order = groups(60), torch.randperm(60)

    found = as_dict(close_pairs(feats[order], 6, 3, 0.8))

    mapped = {(int(order[i]), int(order[j])): each for (i, j), each in found.items()}
    expected = as_dict(close_pairs(feats, 6, 3, 0.8))
    assert mapped == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize('num', [1, 2, 9])
def test_equal_samples_are_at_distance_0_from_themselves(num: int) -> None:
    feats = F.normalize(torch.ones(num, 4))

    found = as_dict(close_pairs(feats, 3, 2, 0.5))

    assert [found[i, i] for i in range(num)] == pytest.approx([0] * num, abs=1e-5)
    assert all(0 <= distance <= 0.5 for distance in found.values())


def test_autocast_changes_nothing() -> None:
    feats = groups(40)
    expected = close_pairs(feats, 6, 3, 0.8)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = close_pairs(feats, 6, 3, 0.8)

    assert all(torch.equal(*parts) for parts in zip(found, expected, strict=True))
