"""SynthPedes: synthetic worlds of pedestrians, and sentences about them."""

from gckd_mm.synthpedes.domain import (
    Shot,
    Sizes,
    SynthDomain,
    default_sizes,
)
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.writer import write_domain

__all__ = ['VERSION', 'Shot', 'Sizes', 'SynthDomain', 'default_sizes', 'write_domain']
