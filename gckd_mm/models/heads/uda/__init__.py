"""Heads of the baselines: unsupervised domain adaptation as others do it."""

from gckd_mm.models.heads.uda.adaptation_head import AdaptationHead, CrossDomainFeats
from gckd_mm.models.heads.uda.cluster_contrast_head import ClusterContrastHead
from gckd_mm.models.heads.uda.coral_head import CORALHead
from gckd_mm.models.heads.uda.domain_adversarial_head import DomainAdversarialHead
from gckd_mm.models.heads.uda.label_propagation_head import LabelPropagationHead
from gckd_mm.models.heads.uda.mmd_head import MMDHead
from gckd_mm.models.heads.uda.mutual_neighbour_head import MutualNeighbourHead
from gckd_mm.models.heads.uda.pouf_head import POUFHead

__all__ = [
    'AdaptationHead',
    'CORALHead',
    'ClusterContrastHead',
    'CrossDomainFeats',
    'DomainAdversarialHead',
    'LabelPropagationHead',
    'MMDHead',
    'MutualNeighbourHead',
    'POUFHead',
]
