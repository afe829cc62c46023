"""Two labelled datasets as one, with no person in both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gckd_mm.datasets import (
    CUHKPEDES,
    ConcatPersonText,
    Draw,
    PersonTextDataset,
    RSTPReid,
)
from gckd_mm.datasets.samplers import PairedSampler
from gckd_mm.errors import InputError

PIPELINE = [
    dict(type='gckd_mm.LoadPersonImage'),
    dict(type='Resize', scale=(32, 64), _scope_='mmcv'),
    dict(type='RandomFlip', prob=0.5, _scope_='mmcv'),
    dict(type='gckd_mm.PackPersonText'),
]


@pytest.fixture
def parts(miniature: Path) -> list[PersonTextDataset]:
    return [
        CUHKPEDES(str(miniature / 'cuhk_pedes'), pipeline=PIPELINE),
        RSTPReid(str(miniature / 'rstpreid'), pipeline=PIPELINE),
    ]


def test_holds_every_item_of_every_part_in_order(
    parts: list[PersonTextDataset],
) -> None:
    whole = ConcatPersonText(parts)
    first, second = parts
    assert len(whole) == len(first) + len(second)
    for index in (0, len(first) - 1, len(first), len(whole) - 1):
        part = first if index < len(first) else second
        local = index if index < len(first) else index - len(first)
        expected = part[Draw(local, seed=5)]
        found = whole[Draw(index, seed=5)]
        assert torch.equal(found['inputs']['images'], expected['inputs']['images'])
        assert found['inputs']['captions'] == expected['inputs']['captions']
        assert found['data_samples'].sample_idx == index
        assert found['data_samples'].pid == whole.pids[index]


def test_nobody_is_in_two_parts(parts: list[PersonTextDataset]) -> None:
    whole = ConcatPersonText(parts)
    first, second = parts
    assert set(first.pids) & set(second.pids)  # as the files number them
    ours = whole.pids[: len(first)], whole.pids[len(first) :]
    assert not set(ours[0]) & set(ours[1])
    np.testing.assert_array_equal(ours[0], first.pids)
    assert len(np.unique(ours[1] - second.pids)) == 1


def test_captions_for_the_vocabulary(parts: list[PersonTextDataset]) -> None:
    assert ConcatPersonText(parts).captions() == [
        caption for part in parts for caption in part.captions()
    ]


def test_runs_of_one_person_come_from_both_parts(
    parts: list[PersonTextDataset],
) -> None:
    whole = ConcatPersonText(parts)
    sampler = PairedSampler(whole, seed=0, num_instances=2)
    pids = whole.pids
    drawn = [sampler.index_at(position) for position in range(200)]
    assert all(pids[a] == pids[b] for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    assert {index < len(parts[0]) for index in drawn} == {True, False}


def test_outside(parts: list[PersonTextDataset]) -> None:
    whole = ConcatPersonText(parts)
    with pytest.raises(IndexError):
        whole[len(whole)]
    with pytest.raises(IndexError):
        whole[-1]


def test_needs_one_view(miniature: Path) -> None:
    pairs = dict(type='CUHKPEDES', data_root=str(miniature / 'cuhk_pedes'))
    images = dict(**pairs, view='images')
    with pytest.raises(InputError, match=r"one view, got \['images', 'pairs'\]"):
        ConcatPersonText([pairs, images])
    with pytest.raises(InputError, match='one view, got '):
        ConcatPersonText([])


@pytest.mark.parametrize('pid', [-1, 2**63 - 1])
def test_ids_that_cannot_be_counted_on(
    miniature: Path, tmp_path: Path, pid: int
) -> None:
    root = tmp_path / 'cuhk_pedes'
    shutil.copytree(miniature / 'cuhk_pedes', root)
    records = json.loads((root / 'reid_raw.json').read_text())
    (root / 'reid_raw.json').write_text(json.dumps([{**records[0], 'id': pid}]))
    parts = [CUHKPEDES(str(root)), CUHKPEDES(str(miniature / 'cuhk_pedes'))]
    with pytest.raises(InputError, match='needs ids from 0 on'):
        len(ConcatPersonText(parts))


def test_the_classes_of_all_parts_are_numbered_in_one_row(
    parts: list[PersonTextDataset],
) -> None:
    whole = ConcatPersonText(
        [type(part)(part.data_root, gt_label=True, pipeline=PIPELINE) for part in parts]
    )
    labels = [int(whole[i]['data_samples'].gt_label) for i in range(len(whole))]
    assert set(labels) == set(range(whole.num_classes))
    classes = whole.metainfo['classes']
    assert [classes[label] for label in labels] == list(map(str, whole.pids))


def test_gt_label_of_some_parts_alone_is_refused(miniature: Path) -> None:
    with pytest.raises(InputError, match='all datasets gt_label=True, or none'):
        ConcatPersonText(
            [
                CUHKPEDES(str(miniature / 'cuhk_pedes'), gt_label=True),
                RSTPReid(str(miniature / 'rstpreid')),
            ]
        )
