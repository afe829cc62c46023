"""What the captions of a test set have found: rank lists from its embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gckd_mm.evaluation.metrics import Embeddings
from gckd_mm.evaluation.ranking import rank_of_positives, top_matches
from gckd_mm.visualization.rank_lists import RankList


class FirstRight(NamedTuple):
    """The best ranked image of the person that a caption describes."""

    rank: int  # from 1
    image: str  # path
    score: float  # cosine similarity
    id: str


@dataclass(frozen=True)
class SearchedSet:
    """A test set and the embeddings of its images and captions.

    Everything is ranked by cosine similarity, equal ones by the gallery's index.
    """

    name: str
    gallery: Any  # its PersonTextDataset with view='images'
    query: Any  # its PersonTextDataset with view='captions'
    images: Embeddings
    captions: Embeddings

    def evenly_spaced(self, num: int) -> np.ndarray:
        """Return ``num`` rows of captions, or all there are, shape (N,)."""
        return np.unique(np.linspace(0, len(self.captions.pids) - 1, num).astype(int))

    def first_right_ranks(self) -> np.ndarray:
        """Return the rank of each caption's first right image, shape (Q,), int64.

        Ranks count from 1; 0 stands for a caption whose person is on no image.
        """
        ranks = np.zeros(len(self.captions.pids), np.int64)
        images, captions = self.images, self.captions
        for rows, found in rank_of_positives(
            captions.feats, images.feats, captions.pids, images.pids
        ):
            ranks[rows] = found[:, 0]
        return ranks

    def rank_lists(
        self, rows: Sequence[int] | np.ndarray, top: int = 8
    ) -> list[RankList]:
        """Return what some captions have found, the first ``top`` images of each."""
        if not len(rows):
            return []
        rows = np.asarray(rows)
        order, scores = top_matches(self.captions.feats[rows], self.images.feats, top)
        return [
            self._rank_list(row, found, similarity)
            for row, found, similarity in zip(rows, order, scores, strict=True)
        ]

    def first_right(self, row: int) -> FirstRight | None:
        """Return the first right image of a caption, None where there is none."""
        feats = self.captions.feats[[row]]
        num_images = len(self.images.pids)
        (order,), (scores,) = top_matches(feats, self.images.feats, num_images)
        right = np.flatnonzero(self.images.pids[order] == self.captions.pids[row])
        if not len(right):
            return None
        place = int(right[0])
        image = int(order[place])
        return FirstRight(
            rank=place + 1,
            image=self._path(image),
            score=float(scores[place]),
            id=str(self.images.pids[image]),
        )

    def _rank_list(
        self, row: int, found: np.ndarray, similarity: np.ndarray
    ) -> RankList:
        pid = self.captions.pids[row]
        caption = self.query.get_data_info(int(self.captions.indices[row]))['caption']
        return RankList(
            caption=caption,
            images=[self._path(image) for image in found],
            scores=similarity.tolist(),
            correct=(self.images.pids[found] == pid).tolist(),
            query_id=str(pid),
            ids=[str(i) for i in self.images.pids[found]],
        )

    def _path(self, image: int) -> str:
        return self.gallery.get_data_info(int(self.images.indices[image]))['img_path']


def searched_sets(
    loaders: Mapping[str, Mapping[str, Any]],
    embeddings: Mapping[str, Mapping[str, Embeddings]],
) -> list[SearchedSet]:
    """Join the loaders of a loop and the embeddings that its metric has kept."""
    return [
        SearchedSet(
            name,
            roles['gallery'].dataset,
            roles['query'].dataset,
            embeddings[name]['images'],
            embeddings[name]['captions'],
        )
        for name, roles in loaders.items()
    ]


def evenly_spaced_rank_lists(
    test_sets: Sequence[SearchedSet], num: int
) -> list[RankList]:
    """Return what ``num`` captions of each test set find; its name is before each."""
    return [
        rank_list._replace(caption=f'{test_set.name}: {rank_list.caption}')
        for test_set in test_sets
        for rank_list in test_set.rank_lists(test_set.evenly_spaced(num))
    ]
