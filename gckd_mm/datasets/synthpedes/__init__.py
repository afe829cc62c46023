"""SynthPedes: drawn worlds of pedestrians, and sentences about them."""

from gckd_mm.datasets.synthpedes.domain import (
    Shot,
    Sizes,
    SynthDomain,
    default_sizes,
)
from gckd_mm.datasets.synthpedes.version import VERSION
from gckd_mm.datasets.synthpedes.writer import write_domain

__all__ = ['VERSION', 'Shot', 'Sizes', 'SynthDomain', 'default_sizes', 'write_domain']
