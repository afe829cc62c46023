"""Models and their parts; each is registered under its class name."""

from gckd_mm.models.backbones import (
    CLIPImageBackbone,
    CLIPTextBackbone,
    HFTextBackbone,
    TinyImageEncoder,
    TinyTextEncoder,
)
from gckd_mm.models.data_preprocessors import PersonTextPreprocessor
from gckd_mm.models.heads import (
    ClusterContrastHead,
    CORALHead,
    DomainAdversarialHead,
    ImageTextMatchingHead,
    InfoNCEHead,
    LabelPropagationHead,
    MMDHead,
    MomentumDistillHead,
    MutualNeighbourHead,
    NeighbourConsistencyHead,
    POUFHead,
    SDMHead,
)
from gckd_mm.models.memory_graph import MemoryGraph
from gckd_mm.models.necks import (
    GraphPropagationNeck,
    ImageProjection,
    TextProjection,
    TokenProjection,
)
from gckd_mm.models.retrievers import GCKD, AdaptedDualEncoder, DualEncoder
from gckd_mm.models.tokenizers import HFTokenizer, WordPieceTokenizer

__all__ = [
    'GCKD',
    'AdaptedDualEncoder',
    'CLIPImageBackbone',
    'CLIPTextBackbone',
    'CORALHead',
    'ClusterContrastHead',
    'DomainAdversarialHead',
    'DualEncoder',
    'GraphPropagationNeck',
    'HFTextBackbone',
    'HFTokenizer',
    'ImageProjection',
    'ImageTextMatchingHead',
    'InfoNCEHead',
    'LabelPropagationHead',
    'MMDHead',
    'MemoryGraph',
    'MomentumDistillHead',
    'MutualNeighbourHead',
    'NeighbourConsistencyHead',
    'POUFHead',
    'PersonTextPreprocessor',
    'SDMHead',
    'TextProjection',
    'TinyImageEncoder',
    'TinyTextEncoder',
    'TokenProjection',
    'WordPieceTokenizer',
]
