"""Schedulers of the optimiser's parameters."""

from gckd_mm.engine.schedulers.adaptation_lr import AdaptationLR

__all__ = ['AdaptationLR']
