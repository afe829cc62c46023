"""Evaluation of text-to-image person retrieval: ranking and metrics."""

from .ranking import rank_metrics

__all__ = ['rank_metrics']
