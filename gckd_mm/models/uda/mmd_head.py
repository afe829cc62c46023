"""Bring the two domains together in the mean of a kernel space."""

from __future__ import annotations

from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient
from gckd_mm.models.uda.adaptation_head import (
    AdaptationHead,
    CrossDomainFeats,
)
from gckd_mm.models.uda.alignment import mmd
from gckd_mm.registry import MODELS


@MODELS.register_module()
class MMDHead(AdaptationHead):
    """Squared MMD of source and target images, and of source and target captions.

    See :func:`~gckd_mm.models.uda.alignment.mmd`. A modality that the target
    lacks is left out.

    Args:
        kernels: Number of Gaussian kernels, which are averaged. Defaults to 5.
        factor: From the bandwidth of one kernel to that of the next. Defaults to 2.
        loss_weight: A number or a schedule. Defaults to 3. Code that adds the
            kernels up instead of averaging them has ``kernels`` times the loss.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``kernels`` is below 1, or ``factor`` does not exceed 1.

    Source: Long et al., *Learning Transferable Features with Deep Adaptation Networks*
    (DAN), ICML 2015; five kernels and a factor of 2 are those of its published code.
    DAN aligns several layers of one network, this the embeddings of both towers (ours).
    """

    def __init__(
        self,
        kernels: int = 5,
        factor: float = 2.0,
        loss_weight: float | dict = 3.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        if kernels < 1 or factor <= 1:
            raise InputError(
                f'MMDHead: kernels must be at least 1 and factor more than 1, got '
                f'{kernels} and {factor}'
            )
        self.kernels = kernels
        self.factor = factor

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return ``loss_mmd_<modality>``, of the batch of all ranks."""
        return {
            f'loss_mmd_{modality}': mmd(
                gather_with_gradient(feats.source[modality]),
                gather_with_gradient(feats.target[modality]),
                self.kernels,
                self.factor,
            )
            for modality in MODALITIES
            if modality in feats.target
        }
