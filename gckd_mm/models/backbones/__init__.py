"""Backbones: images to feature maps or tokens, captions to token features."""

from gckd_mm.models.backbones.clip_image_backbone import CLIPImageBackbone
from gckd_mm.models.backbones.clip_text_backbone import CLIPTextBackbone
from gckd_mm.models.backbones.hf_text_backbone import HFTextBackbone
from gckd_mm.models.backbones.tiny_image_encoder import TinyImageEncoder
from gckd_mm.models.backbones.tiny_text_encoder import TinyTextEncoder

__all__ = [
    'CLIPImageBackbone',
    'CLIPTextBackbone',
    'HFTextBackbone',
    'TinyImageEncoder',
    'TinyTextEncoder',
]
