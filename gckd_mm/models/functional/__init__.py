"""The mathematics of the models: pure functions of tensors to tensors."""

from gckd_mm.models.functional.assignment import (
    CandidateEdges,
    candidate_edges,
    csls_potentials,
    dual_softmax_potentials,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.contrastive import (
    identity_targets,
    info_nce,
    sdm_loss,
)
from gckd_mm.models.functional.distillation import (
    agreement,
    entropy,
    keep_best,
    mutual_gate,
    neighbour_labels,
    quantile_gate,
    soft_cross_entropy,
    soft_labels,
)
from gckd_mm.models.functional.gather import gather_with_gradient
from gckd_mm.models.functional.hard_negatives import hard_negatives
from gckd_mm.models.functional.neighbours import Neighbours, nearest_neighbours
from gckd_mm.models.functional.propagation import neighbour_average

__all__ = [
    'CandidateEdges',
    'Neighbours',
    'agreement',
    'candidate_edges',
    'csls_potentials',
    'dual_softmax_potentials',
    'entropy',
    'gather_with_gradient',
    'hard_negatives',
    'identity_targets',
    'info_nce',
    'keep_best',
    'mutual_gate',
    'nearest_neighbours',
    'neighbour_average',
    'neighbour_labels',
    'quantile_gate',
    'sdm_loss',
    'sinkhorn_potentials',
    'soft_cross_entropy',
    'soft_labels',
]
