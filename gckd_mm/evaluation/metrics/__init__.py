"""Registered metrics."""

from gckd_mm.evaluation.metrics.person_retrieval_metric import (
    Embeddings,
    PersonRetrievalMetric,
)

__all__ = ['Embeddings', 'PersonRetrievalMetric']
