"""Retrievers: whole models, from images and captions to losses or embeddings."""

from gckd_mm.models.retrievers.adapted_dual_encoder import AdaptedDualEncoder
from gckd_mm.models.retrievers.dual_encoder import DualEncoder

__all__ = ['AdaptedDualEncoder', 'DualEncoder']
