"""Make a batch of samples, with the images already in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_person_text(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate as mmengine's ``pseudo_collate`` does, and stack the images.

    A worker hands every tensor to the main process through a file of its own: one for
    the whole batch doubles what the loader feeds.

    Args:
        samples: What :class:`PackPersonText` or :class:`CrossDomainDataset` gives.

    Returns:
        The same structure with lists for single values, and every ``images`` one tensor
        of shape (N, 3, H, W).

    Raises:
        InputError: If the images differ in shape.
    """
    batch = pseudo_collate(samples)
    for part in (batch, batch.get('target', {})):
        inputs = part.get('inputs', {})
        if 'images' in inputs:
            inputs['images'] = stack_images(inputs['images'])
    return batch


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Stack images of one shape.

    Args:
        images: N tensors of shape (3, H, W), or one of shape (N, 3, H, W).

    Returns:
        Shape (N, 3, H, W).

    Raises:
        InputError: If they differ in shape.
    """
    if isinstance(images, Tensor):
        return images
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise InputError(
            f'images of one batch differ in shape: {shapes[0]} and {shapes[1]}; add '
            f"dict(type='Resize', scale=(width, height)) to the pipeline"
        )
    return torch.stack(list(images))
