"""Mathematics that several parts share: pure functions of tensors to tensors.

What one part alone needs stands beside it: losses in ``heads``, averages over
neighbours in ``necks``, label propagation in ``gckd``, those of baselines in ``uda``.
"""

from importlib import import_module
from typing import Any

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

#: function -> the part that it stands beside; version 0.1 had them all here
_BESIDE = {
    'coral': 'uda.alignment',
    'gather_with_gradient': 'heads.contrastive_head',
    'identity_targets': 'heads.contrastive_head',
    'info_nce': 'heads.info_nce_head',
    'mmd': 'uda.alignment',
    'nearest_neighbours': 'gckd.memory',
    'neighbour_average': 'necks.graph_propagation_neck',
    'sdm_loss': 'heads.contrastive_head',
    'soft_cross_entropy': 'heads.momentum_distill_head',
}


def __getattr__(name: str) -> Any:
    """Return a function that stands beside the part that needs it."""
    if name not in _BESIDE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'gckd_mm.models.{_BESIDE[name]}'), name)
