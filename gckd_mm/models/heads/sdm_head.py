"""Similarity distribution matching over the pairs of a batch."""

from __future__ import annotations

from torch import Tensor

from gckd_mm.models.functional import sdm_loss
from gckd_mm.models.heads.contrastive_head import ContrastiveHead
from gckd_mm.registry import MODELS


@MODELS.register_module()
class SDMHead(ContrastiveHead):
    """Similarity distribution matching: see :func:`gckd_mm.models.functional.sdm_loss`.

    Takes the arguments of :class:`ContrastiveHead`; IRRA's temperature is 0.02.
    """

    def objective(
        self, image_feats: Tensor, caption_feats: Tensor, pids: Tensor
    ) -> Tensor:
        """Return the unweighted loss of a whole batch."""
        return sdm_loss(image_feats, caption_feats, pids, self.temperature)
