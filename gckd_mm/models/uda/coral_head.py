"""Bring the covariances of the two domains together."""

from __future__ import annotations

import math

from torch import Tensor

from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient
from gckd_mm.models.uda.adaptation_head import (
    AdaptationHead,
    CrossDomainFeats,
)
from gckd_mm.models.uda.alignment import coral
from gckd_mm.registry import MODELS


@MODELS.register_module()
class CORALHead(AdaptationHead):
    """CORAL of source and target images, and of source and target captions.

    The paper's 1 / 4D² is made for activations of about unit size. Those of an
    embedding of length 1 are of size 1/√D, and its covariance has a trace of at most 1:
    for D = 128 the published loss is at most 3e-5, with a gradient to match. The
    embeddings are therefore scaled to length √D, which leaves ¼ ‖C_source − C_target‖²
    of the unit ones; ``loss_weight`` then means the same for every D. A modality that
    the target lacks is left out.

    Args:
        loss_weight: A number or a schedule. Defaults to 100. (The paper's rule: such
            that at the end this loss and the source's are about equal.)
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: Sun and Saenko, *Deep CORAL*, ECCV Workshops 2016, eq. 1; the length √D and
    the alignment of two modalities are ours.
    """

    def __init__(
        self, loss_weight: float | dict = 100.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(loss_weight, init_cfg)

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return ``loss_coral_<modality>``, of the batch of all ranks."""
        return {
            f'loss_coral_{modality}': coral(
                _unit_activations(feats.source[modality]),
                _unit_activations(feats.target[modality]),
            )
            for modality in MODALITIES
            if modality in feats.target
        }


def _unit_activations(feats: Tensor) -> Tensor:
    gathered = gather_with_gradient(feats).float()
    return gathered * math.sqrt(gathered.shape[1])
