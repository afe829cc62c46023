"""Pseudo-classes against loops over sets of samples."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.reciprocal import ClosePairs
from gckd_mm.models.uda.clusters import (
    capped_assignment,
    density_classes,
    independence_threshold,
    keep_reliable,
    overlap,
)


def on_a_line(places: list[float], radius: float = math.inf) -> ClosePairs:
    """Pairs of points of a line."""
    points = torch.tensor(places)
    distances = (points[:, None] - points).abs()
    rows, columns = (distances <= radius).nonzero(as_tuple=True)
    return ClosePairs(rows, columns, distances[rows, columns])


def members(classes: Tensor) -> list[set[int]]:
    """Return who is in the class of each sample."""
    return [
        {j for j, other in enumerate(classes.tolist()) if other == each}
        for each in classes.tolist()
    ]


@pytest.mark.parametrize('radius', [0.3, math.inf])
def test_blobs_and_loners_in_the_order_of_their_first_members(radius: float) -> None:
    pytest.importorskip('sklearn')
    places = [9.0, 5.0, 0.2, 9.2, 0.0, 7.0, 9.4, 0.3]

    classes = density_classes(on_a_line(places, radius), 8, eps=0.25, min_samples=3)

    # 0, 0.2 and 0.3 are one blob, 9.0, 9.2 and 9.4 another.
    assert classes.tolist() == [0, 1, 2, 0, 2, 3, 0, 2]


def test_two_samples_are_a_cluster_only_if_two_suffice() -> None:
    pytest.importorskip('sklearn')
    pairs = on_a_line([0.0, 0.1, 5.0])

    assert density_classes(pairs, 3, 0.2, min_samples=2).tolist() == [0, 0, 1]
    assert density_classes(pairs, 3, 0.2, min_samples=3).tolist() == [0, 1, 2]


@pytest.mark.filterwarnings('error')
def test_equal_samples_are_one_cluster() -> None:
    pytest.importorskip('sklearn')

    classes = density_classes(on_a_line([1.0] * 5), 5, 0.1, min_samples=4)

    assert classes.tolist() == [0] * 5


def test_without_scikit_learn_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'sklearn.cluster', None)

    with pytest.raises(InputError, match=r"pip install 'gckd-mm\[cluster\]'"):
        density_classes(on_a_line([0.0]), 1, 0.1, 2)


def test_overlap_is_intersection_over_union() -> None:
    classes, others = torch.randint(4, (30,)), torch.randint(3, (30,))

    found = overlap(classes, others)

    pairs = zip(members(classes), members(others), strict=True)
    expected = [len(one & other) / len(one | other) for one, other in pairs]
    assert found.tolist() == pytest.approx(expected)


#: of ten samples; the last is alone
CLASSES = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
#: the first two clusters run into each other
LOOSE = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
#: the third loses its first and its last member
TIGHT = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 4, 5])


def test_clusters_that_run_into_others_are_broken_up() -> None:
    classes = keep_reliable(CLASSES, CLASSES, LOOSE, threshold=0.5)

    # 3 of 5 are enough, 2 of 5 are not.
    assert classes.tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3, 4]


def test_members_that_a_smaller_eps_takes_away_are_on_their_own() -> None:
    classes = keep_reliable(CLASSES, TIGHT, CLASSES, threshold=0.5)

    assert classes.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 4, 5]


def test_what_does_not_depend_on_eps_stays() -> None:
    assert torch.equal(keep_reliable(CLASSES, CLASSES, CLASSES, 1.0), CLASSES)


@pytest.mark.parametrize(
    ('share', 'expected'), [(1.0, 2 / 5), (0.9, 2 / 5), (0.3, 3 / 5), (0.0, 1.0)]
)
def test_the_threshold_keeps_at_least_the_share(share: float, expected: float) -> None:
    # The three clusters have 3/5, 2/5 and 1.
    threshold = independence_threshold(CLASSES, LOOSE, share)

    assert threshold == pytest.approx(expected)


def test_without_clusters_there_is_no_threshold() -> None:
    alone = torch.arange(5)

    assert math.isnan(independence_threshold(alone, torch.zeros(5).long(), 0.9))


@pytest.mark.parametrize('capacity', [0.3, 1.0, 100.0])
def test_assignment_against_letting_the_most_similar_choose_first(
    capacity: float,
) -> None:
    queries = F.normalize(torch.randn(50, 4), dim=1)
    centroids = F.normalize(torch.randn(6, 4), dim=1)
    sizes = torch.tensor([1, 4, 2, 3, 1, 2])

    found = capped_assignment(queries, centroids, sizes, capacity)

    similarity = queries.double() @ centroids.double().t()
    best, choice = similarity.max(dim=1)
    left = [math.ceil(capacity * 50 * size / 13) for size in sizes.tolist()]
    expected = [-1] * 50
    for query in best.argsort(descending=True).tolist():
        chosen = int(choice[query])
        if left[chosen]:
            left[chosen] -= 1
            expected[query] = chosen
    assert found.tolist() == expected
    assert (-1 in expected) == (capacity < 100)
