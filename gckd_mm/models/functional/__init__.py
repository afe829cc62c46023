"""Mathematics that several parts share: pure functions of tensors to tensors.

What one part alone needs stands beside it: losses in ``heads``, averages over
neighbours in ``necks``, label propagation in ``gckd``, those of baselines in ``uda``.
"""

from gckd_mm.models.functional.assignment import (
    CandidateEdges,
    candidate_edges,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.gates import mutual_gate, quantile_gate
from gckd_mm.models.functional.hard_negatives import hard_negatives
from gckd_mm.models.functional.label_propagation import (
    AffinityGraph,
    affinity_graph,
    close_modality_gap,
    propagate_labels,
)
from gckd_mm.models.functional.reciprocal import ClosePairs, close_pairs

__all__ = [
    'AffinityGraph',
    'CandidateEdges',
    'ClosePairs',
    'affinity_graph',
    'candidate_edges',
    'close_modality_gap',
    'close_pairs',
    'hard_negatives',
    'mutual_gate',
    'propagate_labels',
    'quantile_gate',
    'score_edges',
    'sinkhorn_potentials',
]
