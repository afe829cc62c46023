"""What the model sees of a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from gckd_mm.datasets.transforms import PackPersonText

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
FULL = {
    'img': IMAGE,
    'img_path': 'imgs/0007_c1.png',
    'img_shape': (4, 5),
    'caption': 'a man',
    'pid': 7,
    'sample_idx': 2,
}


def test_a_pair() -> None:
    packed = PackPersonText()(dict(FULL))

    assert set(packed) == {'inputs', 'data_samples'}
    assert set(packed['inputs']) == {'images', 'captions'}
    assert packed['inputs']['captions'] == 'a man'
    assert packed['data_samples'].to_dict() == {'pid': 7, 'sample_idx': 2}


def test_the_image_against_a_loop_over_pixels() -> None:
    image = PackPersonText()(dict(FULL))['inputs']['images']

    assert image.dtype == torch.uint8
    assert image.shape == (3, 4, 5)
    for y in range(4):
        for x in range(5):
            assert image[:, y, x].tolist() == IMAGE[y, x].tolist()


@pytest.mark.parametrize('strides', ['flipped', 'cropped'])
def test_views_of_an_image_are_packed_whole(strides: str) -> None:
    view = IMAGE[:, ::-1] if strides == 'flipped' else IMAGE[1:3, 2:]

    image = PackPersonText()({'img': view})['inputs']['images']

    np.testing.assert_array_equal(image.numpy(), np.moveaxis(view, 2, 0))


@pytest.mark.parametrize(('key', 'name'), [('img', 'images'), ('caption', 'captions')])
def test_one_modality_alone(key: str, name: str) -> None:
    results = {field: FULL[field] for field in (key, 'pid', 'sample_idx')}

    assert set(PackPersonText()(results)['inputs']) == {name}


def test_an_unlabelled_sample_has_no_pid() -> None:
    packed = PackPersonText()({'caption': 'a man', 'sample_idx': 4})

    assert isinstance(packed['data_samples'], BaseDataElement)
    assert packed['data_samples'].to_dict() == {'sample_idx': 4}


def test_no_path_is_left() -> None:
    packed = PackPersonText()(dict(FULL))

    assert '0007_c1' not in repr(packed)
    assert repr(PackPersonText()) == 'PackPersonText()'
