"""Galleries: pictures embedded once, kept up to date, and searched."""

from gckd_mm.gallery.conditions import Condition, parse_condition
from gckd_mm.gallery.gallery import Gallery
from gckd_mm.gallery.items import Item, Match

__all__ = ['Condition', 'Gallery', 'Item', 'Match', 'parse_condition']
