"""The last transform: what the model sees of a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement

from gckd_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackPersonText(BaseTransform):
    """Pack ``img`` and/or ``caption`` as inputs, and the rest as a data sample.

    Returns ``dict(inputs=dict(images=…, captions=…), data_samples=…)`` with whichever
    of the two there is: an image as a uint8 tensor of shape (3, H, W), a caption as a
    string (the model's data preprocessor owns the tokenizer). The data sample holds
    ``pid`` (if known), ``sample_idx`` and ``gt_label`` (if the dataset gives it; shape
    (1,), as mmpretrain's heads read it), and never a path: file names can hold ids.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack one sample."""
        inputs: dict[str, Any] = {}
        if 'img' in results:
            image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
            inputs['images'] = torch.from_numpy(image)
        if 'caption' in results:
            inputs['captions'] = results['caption']
        fields: dict[str, Any] = {
            key: results[key] for key in ('pid', 'sample_idx') if key in results
        }
        if 'gt_label' in results:
            fields['gt_label'] = torch.tensor([results['gt_label']])
        return {'inputs': inputs, 'data_samples': BaseDataElement(**fields)}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
