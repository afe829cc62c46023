"""Checkpoints of other projects, in and out: key mappings as pure functions."""

from gckd_mm.interop.conversion import (
    BACKBONES,
    FAMILIES,
    Conversion,
    convert,
    convert_backbone,
    export_hf,
)

__all__ = [
    'BACKBONES',
    'FAMILIES',
    'Conversion',
    'convert',
    'convert_backbone',
    'export_hf',
]
