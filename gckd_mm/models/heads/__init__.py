"""Heads: they turn embeddings into named losses."""

from gckd_mm.models.heads.contrastive_head import ContrastiveHead, SDMHead
from gckd_mm.models.heads.image_text_matching_head import ImageTextMatchingHead
from gckd_mm.models.heads.info_nce_head import InfoNCEHead
from gckd_mm.models.heads.momentum_distill_head import (
    MomentumDistillHead,
    NeighbourConsistencyHead,
)

__all__ = [
    'ContrastiveHead',
    'ImageTextMatchingHead',
    'InfoNCEHead',
    'MomentumDistillHead',
    'NeighbourConsistencyHead',
    'SDMHead',
]
