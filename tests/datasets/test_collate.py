"""Batches: as mmengine's, with the images in one tensor."""

from __future__ import annotations

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement

from gckd_mm.datasets import collate_person_text
from gckd_mm.errors import InputError


def samples(target: bool = True, images: bool = True) -> list[dict]:
    """Three samples as the datasets give them."""
    result = []
    for number in range(3):
        inputs = {'captions': f'caption {number}'}
        if images:
            inputs['images'] = torch.full((3, 4, 2), number, dtype=torch.uint8)
        sample = {'inputs': inputs, 'data_samples': BaseDataElement(pid=number)}
        if target:
            unlabelled = torch.full((3, 4, 2), 10 + number, dtype=torch.uint8)
            sample['target'] = {'inputs': {'images': unlabelled}, 'image_index': number}
        result.append(sample)
    return result


@pytest.mark.parametrize('target', [True, False])
def test_all_but_the_images_is_as_mmengine_has_it(target: bool) -> None:
    batch, expected = (
        collate_person_text(samples(target)),
        pseudo_collate(samples(target)),
    )

    assert batch.keys() == expected.keys()
    assert batch['inputs']['captions'] == expected['inputs']['captions']
    assert [sample.pid for sample in batch['data_samples']] == [0, 1, 2]
    if target:
        assert batch['target']['image_index'] == [0, 1, 2]


def test_the_images_of_both_domains_are_stacked_in_order() -> None:
    batch = collate_person_text(samples())

    for part, first in ((batch, 0), (batch['target'], 10)):
        images = part['inputs']['images']
        assert images.dtype == torch.uint8
        assert images.shape == (3, 3, 4, 2)
        assert images[:, 0, 0, 0].tolist() == [first, first + 1, first + 2]


def test_captions_alone() -> None:
    batch = collate_person_text(samples(target=False, images=False))

    assert batch['inputs'] == {'captions': ['caption 0', 'caption 1', 'caption 2']}


@pytest.mark.parametrize('domain', ['source', 'target'])
def test_images_of_different_sizes_are_refused(domain: str) -> None:
    batch = samples()
    odd = batch[1] if domain == 'source' else batch[1]['target']
    odd['inputs']['images'] = torch.zeros(3, 8, 2, dtype=torch.uint8)

    with pytest.raises(InputError, match=r'differ in shape.*\(3, 4, 2\).*Resize'):
        collate_person_text(batch)
