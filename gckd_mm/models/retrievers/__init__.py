"""Retrievers: whole models, from images and captions to losses or embeddings."""

from gckd_mm.models.retrievers.dual_encoder import DualEncoder
from gckd_mm.models.retrievers.gckd import GCKD

__all__ = ['GCKD', 'DualEncoder']
