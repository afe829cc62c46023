"""Heads of the baselines: unsupervised domain adaptation as others do it."""

from gckd_mm.models.heads.uda.adaptation_head import AdaptationHead, CrossDomainFeats

__all__ = ['AdaptationHead', 'CrossDomainFeats']
