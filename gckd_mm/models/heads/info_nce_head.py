"""InfoNCE over the pairs of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.heads.contrastive_head import ContrastiveHead, identity_targets
from gckd_mm.registry import MODELS


def info_nce(
    image_feats: Tensor, caption_feats: Tensor, pids: Tensor, temperature: float
) -> Tensor:
    """Identity-aware InfoNCE: cross-entropy to all pairs of the same person.

    With pairwise different ids it is CLIP's loss. In float32, under autocast too.
    Arguments as of :func:`~gckd_mm.models.heads.contrastive_head.sdm_loss`.

    Returns:
        Scalar: the mean over the batch and over both directions.

    Source: Radford et al., *CLIP*, ICML 2021, fig. 3; the identity-aware targets are
    ours.
    """
    with torch.autocast(image_feats.device.type, enabled=False):
        logits = image_feats.float() @ caption_feats.float().t() / temperature
        targets = identity_targets(pids)
        image_to_text = F.cross_entropy(logits, targets)
        text_to_image = F.cross_entropy(logits.t(), targets)
        return (image_to_text + text_to_image) / 2


@MODELS.register_module()
class InfoNCEHead(ContrastiveHead):
    """Identity-aware InfoNCE: see :func:`info_nce`."""

    objective = staticmethod(info_nce)
