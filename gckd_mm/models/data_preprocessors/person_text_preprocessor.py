"""From the loader's lists to the model's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from gckd_mm.datasets.collate import stack_images
from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS


@MODELS.register_module()
class PersonTextPreprocessor(BaseDataPreprocessor):
    """Stack and normalise the images, tokenise the captions, move all to the device.

    Turns every ``inputs`` of the collated batch, the target's too, into
    ``dict(images=…, captions=…)`` with whichever there is: images as float32 of shape
    (N, 3, H, W), captions as the tokenizer's dict, padded to the longest of the batch.

    Args:
        tokenizer: Config of the tokenizer.
        mean: Per RGB channel, on the scale 0–255. Defaults to ImageNet's.
        std: Per RGB channel, on the scale 0–255. Defaults to ImageNet's.
        non_blocking: Whether transfers to the device may overlap with computation.
    """

    def __init__(
        self,
        tokenizer: dict,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.tokenizer = MODELS.build(tokenizer)
        self.register_buffer('mean', _per_channel(mean), persistent=False)
        self.register_buffer('std', _per_channel(std), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare one collated batch: see the class.

        Raises:
            InputError: If the images of the batch differ in size, or if nothing has
                packed them.
        """
        if 'inputs' not in data:
            raise InputError(
                f'PersonTextPreprocessor: the pipeline of the dataset must end with '
                f"dict(type='PackPersonText'); its items hold {sorted(data)}"
            )
        prepared = {**data, 'inputs': self._prepare(data['inputs'])}
        if 'target' in data:
            target = data['target']
            prepared['target'] = {**target, 'inputs': self._prepare(target['inputs'])}
        return prepared

    def _prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = {}
        if 'images' in inputs:
            prepared['images'] = self._stack(inputs['images'])
        if 'captions' in inputs:
            prepared['captions'] = self.cast_data(self.tokenizer(inputs['captions']))
        return prepared

    def _stack(self, images: Sequence[Tensor]) -> Tensor:
        batch = self.cast_data(stack_images(images))
        return (batch.float() - self.mean) / self.std


def _per_channel(values: Sequence[float]) -> Tensor:
    found = torch.tensor(values).view(-1, 1, 1)
    if len(found) not in (1, 3):
        raise InputError(
            f'PersonTextPreprocessor: mean and std are of the 3 channels of RGB, got '
            f'{values}'
        )
    return found
