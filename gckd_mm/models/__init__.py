"""Models and their parts; each is registered under its class name."""

from gckd_mm.models.backbones import TinyImageEncoder, TinyTextEncoder
from gckd_mm.models.data_preprocessors import PersonTextPreprocessor
from gckd_mm.models.heads import InfoNCEHead, SDMHead
from gckd_mm.models.necks import ImageProjection, TextProjection
from gckd_mm.models.retrievers import DualEncoder
from gckd_mm.models.tokenizers import WordPieceTokenizer

__all__ = [
    'DualEncoder',
    'ImageProjection',
    'InfoNCEHead',
    'PersonTextPreprocessor',
    'SDMHead',
    'TextProjection',
    'TinyImageEncoder',
    'TinyTextEncoder',
    'WordPieceTokenizer',
]
