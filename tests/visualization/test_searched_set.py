"""What captions have found, against sorting by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gckd_mm.visualization.searched_set import (
    SearchedSet,
    evenly_spaced_rank_lists,
    searched_sets,
)
from tests.visualization.searched import searched_set

IMAGE_PIDS = [1, 2, 2, 3, 1]
QUERY_PIDS = [2, 1, 9]
SCORES = [
    [0.9, 0.1, 0.5, 0.7, 0.2],  # 0, 3, 2: the first right one is image 2, at rank 3
    [0.3, 0.3, 0.1, 0.2, 0.3],  # equal ones by their index: image 0, at rank 1
    [0.1, 0.2, 0.3, 0.4, 0.5],  # nobody
]


@pytest.fixture
def test_set(tmp_path: Path) -> SearchedSet:
    return searched_set(tmp_path, SCORES, QUERY_PIDS, IMAGE_PIDS)


def test_rank_lists_hold_what_was_found_best_first(test_set: SearchedSet) -> None:
    first, second = test_set.rank_lists([0, 1], top=3)
    assert first.caption == 'caption 0'
    assert [Path(path).stem for path in first.images] == [
        'image_0',
        'image_3',
        'image_2',
    ]
    assert first.scores == pytest.approx([0.9, 0.7, 0.5])
    assert first.correct == [False, False, True]
    assert (first.query_id, first.ids) == ('2', ['1', '3', '2'])
    assert second.correct == [True, False, True]
    assert test_set.rank_lists([]) == []


def test_the_first_right_image_may_come_at_any_rank(test_set: SearchedSet) -> None:
    assert test_set.first_right_ranks().tolist() == [3, 1, 0]
    found = test_set.first_right(0)
    assert found is not None
    assert (found.rank, Path(found.image).stem, found.id) == (3, 'image_2', '2')
    assert found.score == pytest.approx(0.5)
    assert test_set.first_right(2) is None


def test_ranks_are_those_of_a_sort(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # integers, many of them equal
    scores = rng.integers(0, 6, (20, 15)).astype(float)
    query_pids, image_pids = rng.integers(0, 5, 20), rng.integers(0, 5, 15)
    test_set = searched_set(
        tmp_path, scores.tolist(), query_pids.tolist(), image_pids.tolist()
    )
    ranks = test_set.first_right_ranks()
    for row in range(20):
        order = sorted(
            range(15), key=lambda image, row=row: (-scores[row, image], image)
        )
        right = [
            place
            for place, image in enumerate(order, 1)
            if image_pids[image] == query_pids[row]
        ]
        found = test_set.first_right(row)
        assert ranks[row] == (right[0] if right else 0)
        assert (found.rank if found else 0) == ranks[row]


def test_rows_are_spread_evenly(test_set: SearchedSet) -> None:
    assert test_set.evenly_spaced(2).tolist() == [0, 2]
    assert test_set.evenly_spaced(50).tolist() == [0, 1, 2]


def test_the_rank_lists_of_several_sets_begin_with_their_names(
    tmp_path: Path,
) -> None:
    sets = [
        searched_set(tmp_path, SCORES, QUERY_PIDS, IMAGE_PIDS, name=name)
        for name in ('mall', 'street')
    ]
    captions = [rank_list.caption for rank_list in evenly_spaced_rank_lists(sets, 2)]
    assert captions == [
        'mall: caption 0',
        'mall: caption 2',
        'street: caption 0',
        'street: caption 2',
    ]


def test_loaders_and_embeddings_are_joined(test_set: SearchedSet) -> None:
    loaders = {
        'mall': {
            'gallery': SimpleNamespace(dataset=test_set.gallery),
            'query': SimpleNamespace(dataset=test_set.query),
        }
    }
    parts = {'images': test_set.images, 'captions': test_set.captions}
    assert searched_sets(loaders, {'mall': parts, 'other': parts}) == [test_set]
