"""Models and their parts; each is registered under its class name."""

from gckd_mm.models.backbones import (
    CLIPImageBackbone,
    CLIPTextBackbone,
    HFTextBackbone,
    TinyImageEncoder,
    TinyTextEncoder,
)
from gckd_mm.models.data_preprocessors import PersonTextPreprocessor
from gckd_mm.models.gckd.graph import MemoryGraph
from gckd_mm.models.gckd.labels import PseudoLabels
from gckd_mm.models.gckd.learned_graph import GCKDWithLearnedGraph
from gckd_mm.models.gckd.matching import GCKDWithMatching
from gckd_mm.models.gckd.model import GCKD
from gckd_mm.models.heads import (
    ImageTextMatchingHead,
    InfoNCEHead,
    MomentumDistillHead,
    NeighbourConsistencyHead,
    SDMHead,
)
from gckd_mm.models.necks import (
    GraphPropagationNeck,
    ImageProjection,
    TextProjection,
    TokenProjection,
)
from gckd_mm.models.retrievers import DualEncoder
from gckd_mm.models.tokenizers import HFTokenizer, WordPieceTokenizer
from gckd_mm.models.uda import (
    AdaptedDualEncoder,
    ClusterContrastHead,
    CORALHead,
    DomainAdversarialHead,
    LabelPropagationHead,
    MMDHead,
    MutualNeighbourHead,
    POUFHead,
)

__all__ = [
    'GCKD',
    'AdaptedDualEncoder',
    'CLIPImageBackbone',
    'CLIPTextBackbone',
    'CORALHead',
    'ClusterContrastHead',
    'DomainAdversarialHead',
    'DualEncoder',
    'GCKDWithLearnedGraph',
    'GCKDWithMatching',
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
    'PseudoLabels',
    'SDMHead',
    'TextProjection',
    'TinyImageEncoder',
    'TinyTextEncoder',
    'TokenProjection',
    'WordPieceTokenizer',
]
