"""Galleries: images embedded once, kept up to date, and searched."""

from gckd_mm.search.gallery.conditions import Condition, parse_condition
from gckd_mm.search.gallery.gallery import Gallery
from gckd_mm.search.gallery.items import Item, Match

__all__ = ['Condition', 'Gallery', 'Item', 'Match', 'parse_condition']
