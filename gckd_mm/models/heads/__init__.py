"""Heads: they turn embeddings into named losses."""

from gckd_mm.models.heads.contrastive_head import ContrastiveHead
from gckd_mm.models.heads.info_nce_head import InfoNCEHead
from gckd_mm.models.heads.sdm_head import SDMHead

__all__ = ['ContrastiveHead', 'InfoNCEHead', 'SDMHead']
