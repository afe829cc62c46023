"""The augmentation of the field, mmcv's and mmpretrain's, under the seed of a draw."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from gckd_mm.datasets import CUHKPEDES, Draw

HEIGHT, WIDTH = 96, 32
FLIP = dict(type='RandomFlip', prob=0.5, _scope_='mmcv')
PAD_CROP = dict(
    type='mmpretrain.RandomCrop', crop_size=(HEIGHT, WIDTH), padding=10, pad_val=0
)
ERASE = dict(
    type='mmpretrain.RandomErasing',
    erase_prob=0.5,
    min_area_ratio=0.02,
    max_area_ratio=0.4,
    mode='const',
    fill_color=(1, 2, 3),
)
MASK = dict(type='gckd_mm.RandomWordMask', prob=0.3)


def dataset(folder: Path, *augmentation: dict) -> CUHKPEDES:
    pipeline = [
        dict(type='gckd_mm.LoadPersonImage'),
        dict(type='mmcv.Resize', scale=(WIDTH, HEIGHT)),
        *augmentation,
        dict(type='gckd_mm.PackPersonText'),
    ]
    return CUHKPEDES(data_root=str(folder / 'cuhk_pedes'), pipeline=pipeline)


def image_of(data: CUHKPEDES, draw: Draw) -> torch.Tensor:
    return data[draw]['inputs']['images']


@pytest.mark.parametrize(
    'augmentation', [[FLIP], [PAD_CROP], [ERASE], [MASK], [FLIP, PAD_CROP, ERASE, MASK]]
)
def test_the_draw_alone_decides(miniature: Path, augmentation: list[dict]) -> None:
    data = dataset(miniature, *augmentation)
    items = []
    for disturbance in (0, 1):
        # Whatever a worker has drawn before.
        random.seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002
        torch.manual_seed(disturbance)
        items.append([data[Draw(2, seed)]['inputs'] for seed in range(12)])

    for first, second in zip(*items, strict=True):
        assert torch.equal(first['images'], second['images'])
        assert first['captions'] == second['captions']
    assert len({(i['images'].numpy().tobytes(), i['captions']) for i in items[0]}) > 1


def test_flip_is_left_for_right(miniature: Path) -> None:
    plain = image_of(dataset(miniature), Draw(0, 0))
    data = dataset(miniature, FLIP)
    found = [image_of(data, Draw(0, seed)) for seed in range(20)]

    flipped = [torch.equal(image, plain.flip(-1)) for image in found]
    assert 3 < sum(flipped) < 17
    assert all(
        torch.equal(image, plain)
        for image, is_flipped in zip(found, flipped, strict=True)
        if not is_flipped
    )


def test_pad_crop_shifts_by_at_most_the_padding(miniature: Path) -> None:
    plain = image_of(dataset(miniature), Draw(0, 0))
    padded = torch.nn.functional.pad(plain, (10, 10, 10, 10))
    shifts = {}
    for y in range(21):
        for x in range(21):
            part = padded[:, y : y + HEIGHT, x : x + WIDTH]
            shifts[part.contiguous().numpy().tobytes()] = (y, x)
    data = dataset(miniature, PAD_CROP)

    found = {
        shifts[image_of(data, Draw(0, seed)).numpy().tobytes()] for seed in range(30)
    }

    assert len(found) > 20


def test_erasing_fills_one_rectangle_of_the_asked_size(miniature: Path) -> None:
    plain = image_of(dataset(miniature), Draw(0, 0))
    data = dataset(miniature, ERASE)
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
    erased = 0
    for seed in range(30):
        image = image_of(data, Draw(0, seed))
        changed = (image != plain).any(dim=0)
        if not changed.any():
            continue
        erased += 1
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        assert (image[:, top:bottom, left:right] == fill).all()
        share = (bottom - top) * (right - left) / (HEIGHT * WIDTH)
        assert 0.01 < share < 0.42
    assert 5 < erased < 25
    # Erasing writes in place: the next sample of the same file must not see it.
    assert torch.equal(image_of(dataset(miniature), Draw(0, 0)), plain)
