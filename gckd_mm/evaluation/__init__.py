"""Evaluation of text-to-image person retrieval: ranking and metrics."""

from .ranking import rank_metrics, top_matches

__all__ = ['rank_metrics', 'top_matches']
