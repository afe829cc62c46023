"""Retrievers: whole models that train and embed."""

from gckd_mm.models.retrievers.dual_encoder import DualEncoder

__all__ = ['DualEncoder']
