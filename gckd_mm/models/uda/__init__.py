"""Heads of the baselines: unsupervised domain adaptation as others do it."""

from gckd_mm.models.uda.adaptation_head import AdaptationHead, CrossDomainFeats
from gckd_mm.models.uda.adapted_dual_encoder import AdaptedDualEncoder
from gckd_mm.models.uda.cluster_contrast_head import ClusterContrastHead
from gckd_mm.models.uda.coral_head import CORALHead
from gckd_mm.models.uda.domain_adversarial_head import DomainAdversarialHead
from gckd_mm.models.uda.label_propagation_head import LabelPropagationHead
from gckd_mm.models.uda.mmd_head import MMDHead
from gckd_mm.models.uda.mutual_neighbour_head import MutualNeighbourHead
from gckd_mm.models.uda.pouf_head import POUFHead

__all__ = [
    'AdaptationHead',
    'AdaptedDualEncoder',
    'CORALHead',
    'ClusterContrastHead',
    'CrossDomainFeats',
    'DomainAdversarialHead',
    'LabelPropagationHead',
    'MMDHead',
    'MutualNeighbourHead',
    'POUFHead',
]
