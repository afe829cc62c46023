"""Checkpoints of other projects, in and out: key mappings as pure functions."""

from gckd_mm.interop.conversion import FAMILIES, Conversion, convert, export_hf

__all__ = ['FAMILIES', 'Conversion', 'convert', 'export_hf']
