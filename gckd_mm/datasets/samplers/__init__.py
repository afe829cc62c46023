"""Samplers: they make every draw, so that a dataset needs no state."""

from gckd_mm.datasets.samplers.cross_domain_sampler import CrossDomainSampler
from gckd_mm.datasets.samplers.draw_sampler import DrawSampler
from gckd_mm.datasets.samplers.paired_sampler import PairedSampler

__all__ = ['CrossDomainSampler', 'DrawSampler', 'PairedSampler']
