"""The mathematics of the models: pure functions of tensors to tensors."""

from gckd_mm.models.functional.contrastive import (
    identity_targets,
    info_nce,
    sdm_loss,
)
from gckd_mm.models.functional.gather import gather_with_gradient

__all__ = ['gather_with_gradient', 'identity_targets', 'info_nce', 'sdm_loss']
