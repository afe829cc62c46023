"""Retrievers: whole models, from images and captions to losses or embeddings."""

from gckd_mm.models.retrievers.dual_encoder import DualEncoder

__all__ = ['DualEncoder']
