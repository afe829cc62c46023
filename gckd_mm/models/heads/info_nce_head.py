"""InfoNCE over the pairs of a batch."""

from __future__ import annotations

from torch import Tensor

from gckd_mm.models.functional import info_nce
from gckd_mm.models.heads.contrastive_head import ContrastiveHead
from gckd_mm.registry import MODELS


@MODELS.register_module()
class InfoNCEHead(ContrastiveHead):
    """Identity-aware InfoNCE: see :func:`gckd_mm.models.functional.info_nce`.

    Takes the arguments of :class:`ContrastiveHead`.
    """

    def objective(
        self, image_feats: Tensor, caption_feats: Tensor, pids: Tensor
    ) -> Tensor:
        """Return the unweighted loss of a whole batch."""
        return info_nce(image_feats, caption_feats, pids, self.temperature)
