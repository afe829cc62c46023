"""The mathematics of the models: pure functions of tensors to tensors."""

from gckd_mm.models.functional.alignment import coral, mmd, reverse_gradient
from gckd_mm.models.functional.assignment import (
    CandidateEdges,
    candidate_edges,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.clusters import (
    capped_assignment,
    density_classes,
    independence_threshold,
    keep_reliable,
    overlap,
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
from gckd_mm.models.functional.label_propagation import (
    AffinityGraph,
    affinity_graph,
    close_modality_gap,
    propagate_labels,
)
from gckd_mm.models.functional.propagation import (
    Transitions,
    neighbour_average,
    propagate_labels_once,
    transition_matrix,
)
from gckd_mm.models.functional.reciprocal import ClosePairs, close_pairs
from gckd_mm.models.functional.transport import prediction_entropies, transport_cost
from gckd_mm.models.gckd.neighbours import Neighbours, nearest_neighbours

__all__ = [
    'AffinityGraph',
    'CandidateEdges',
    'ClosePairs',
    'Neighbours',
    'Transitions',
    'affinity_graph',
    'agreement',
    'candidate_edges',
    'capped_assignment',
    'close_modality_gap',
    'close_pairs',
    'coral',
    'density_classes',
    'entropy',
    'gather_with_gradient',
    'hard_negatives',
    'identity_targets',
    'independence_threshold',
    'info_nce',
    'keep_best',
    'keep_reliable',
    'mmd',
    'mutual_gate',
    'nearest_neighbours',
    'neighbour_average',
    'neighbour_labels',
    'overlap',
    'prediction_entropies',
    'propagate_labels',
    'propagate_labels_once',
    'quantile_gate',
    'reverse_gradient',
    'score_edges',
    'sdm_loss',
    'sinkhorn_potentials',
    'soft_cross_entropy',
    'soft_labels',
    'transition_matrix',
    'transport_cost',
]
