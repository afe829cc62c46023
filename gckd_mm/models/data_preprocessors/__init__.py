"""Data preprocessors: from collated batches to tensors."""

from gckd_mm.models.data_preprocessors.person_text_preprocessor import (
    PersonTextPreprocessor,
)

__all__ = ['PersonTextPreprocessor']
