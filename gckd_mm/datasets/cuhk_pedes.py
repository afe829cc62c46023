"""CUHK-PEDES."""

from typing import Any, ClassVar

from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.registry import DATASETS


@DATASETS.register_module()
class CUHKPEDES(PersonTextDataset):
    """CUHK-PEDES: 13,003 people from five re-identification datasets.

    Expects ``reid_raw.json`` and the images below ``imgs/``. See
    :class:`PersonTextDataset` for the arguments.

    Source: Li et al., *Person Search with Natural Language Description*, CVPR 2017.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset': 'cuhk_pedes'}
    folder = 'cuhk_pedes'
    ann_files = ('reid_raw.json',)
    access = (
        'ask its authors (https://github.com/ShuangLI59/'
        'Person-Search-with-Natural-Language-Description)'
    )
    published_counts: ClassVar[dict[str, tuple[int, int, int]]] = {
        'train': (11003, 34054, 68126),
        'val': (1000, 3078, 6158),
        'test': (1000, 3074, 6156),
    }
