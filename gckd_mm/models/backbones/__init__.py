"""Backbones: images to feature maps, captions to token features."""

from gckd_mm.models.backbones.tiny_image_encoder import TinyImageEncoder
from gckd_mm.models.backbones.tiny_text_encoder import TinyTextEncoder

__all__ = ['TinyImageEncoder', 'TinyTextEncoder']
