"""Necks: features to embeddings."""

from gckd_mm.models.necks.image_projection import ImageProjection
from gckd_mm.models.necks.text_projection import TextProjection

__all__ = ['ImageProjection', 'TextProjection']
