"""Person-text datasets, their views, and the cross-domain pairing of two of them."""

from gckd_mm.datasets.collate import collate_person_text
from gckd_mm.datasets.concat_person_text import ConcatPersonText
from gckd_mm.datasets.cross_domain import CrossDomainDataset
from gckd_mm.datasets.cuhk_pedes import CUHKPEDES
from gckd_mm.datasets.draw import Draw
from gckd_mm.datasets.icfg_pedes import ICFGPEDES
from gckd_mm.datasets.person_image_folder import PersonImageFolder
from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.datasets.rstpreid import RSTPReid

__all__ = [
    'CUHKPEDES',
    'ICFGPEDES',
    'ConcatPersonText',
    'CrossDomainDataset',
    'Draw',
    'PersonImageFolder',
    'PersonTextDataset',
    'RSTPReid',
    'collate_person_text',
]
