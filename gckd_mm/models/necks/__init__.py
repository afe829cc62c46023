"""Necks: features to embeddings."""

from gckd_mm.models.necks.graph_propagation_neck import GraphPropagationNeck
from gckd_mm.models.necks.image_projection import ImageProjection
from gckd_mm.models.necks.text_projection import TextProjection
from gckd_mm.models.necks.token_projection import TokenProjection

__all__ = [
    'GraphPropagationNeck',
    'ImageProjection',
    'TextProjection',
    'TokenProjection',
]
