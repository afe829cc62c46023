"""Several labelled datasets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from gckd_mm.datasets.draw import Draw, seeded_augmentation
from gckd_mm.datasets.person_text import PersonTextDataset, as_dataset
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS


@DATASETS.register_module()
class ConcatPersonText(Dataset):
    """The items of several datasets, one dataset after the other.

    No person is in two of them: the ids of the second dataset begin after those of the
    first, and so do its labels (``gt_label``). Trained on source and target together, a
    model is the target-supervised oracle that adaptation is measured against.

    Args:
        datasets: Configs of datasets, or datasets, that show the same view.

    Raises:
        InputError: If there are none, or if their views differ, or if some give a
            ``gt_label`` and some do not.
    """

    def __init__(self, datasets: Sequence[dict | PersonTextDataset]) -> None:
        self.datasets = [as_dataset(dataset) for dataset in datasets]
        views = {dataset.view for dataset in self.datasets}
        if len(views) != 1:
            raise InputError(
                f'ConcatPersonText: needs datasets of one view, got {sorted(views)}'
            )
        if len({dataset.gt_label for dataset in self.datasets}) != 1:
            raise InputError(
                'ConcatPersonText: give all datasets gt_label=True, or none'
            )
        self._ends: list[int] = []
        self._first_pids: list[int] = []
        self._first_labels: list[int] = []

    @property
    def metainfo(self) -> dict[str, Any]:
        """The first dataset's meta information, with the classes of all."""
        metainfo = self.datasets[0].metainfo
        if self.datasets[0].gt_label:
            self.full_init()
            metainfo['classes'] = tuple(
                str(int(pid) + first)
                for dataset, first in zip(self.datasets, self._first_pids, strict=True)
                for pid in dataset.metainfo['classes']
            )
        return metainfo

    @property
    def num_classes(self) -> int:
        """Number of people of all datasets: see :class:`PersonTextDataset`."""
        return sum(dataset.num_classes for dataset in self.datasets)

    @property
    def pids(self) -> np.ndarray:
        """Person id of every item, shape (N,), int64."""
        self.full_init()
        return np.concatenate(
            [
                dataset.pids + first
                for dataset, first in zip(self.datasets, self._first_pids, strict=True)
            ]
        )

    def full_init(self) -> None:
        """Load the annotations if that was put off."""
        if self._ends:
            return
        self._ends = list(accumulate(len(dataset) for dataset in self.datasets))
        counts = [int(dataset.pids.max()) + 1 for dataset in self.datasets]
        if min(int(dataset.pids.min()) for dataset in self.datasets) < 0 or (
            sum(counts) > np.iinfo(np.int64).max
        ):
            raise InputError(
                'ConcatPersonText: needs ids from 0 on that add up to less than 2^63; '
                'number the people of each dataset anew'
            )
        self._first_pids = [0, *accumulate(counts[:-1])]
        if self.datasets[0].gt_label:
            classes = [dataset.num_classes for dataset in self.datasets]
            self._first_labels = [0, *accumulate(classes[:-1])]

    def captions(self) -> list[str]:
        """Return the captions of all datasets."""
        return [caption for part in self.datasets for caption in part.captions()]

    def __len__(self) -> int:
        self.full_init()
        return self._ends[-1]

    def __getitem__(self, index: int | Draw) -> Any:
        """Return one item; a :class:`Draw` also fixes its augmentation."""
        if isinstance(index, Draw):
            with seeded_augmentation(index.seed):
                return self[index.index]
        self.full_init()
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} of {len(self)} items')
        part = bisect_right(self._ends, index)
        dataset = self.datasets[part]
        item = dataset.get_data_info(index - (self._ends[part] - len(dataset)))
        item['pid'] += self._first_pids[part]
        if self._first_labels:
            item['gt_label'] += self._first_labels[part]
        return dataset.pipeline({**item, 'sample_idx': index})
