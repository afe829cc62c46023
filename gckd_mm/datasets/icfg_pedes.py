"""ICFG-PEDES."""

from typing import Any, ClassVar

from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.registry import DATASETS


@DATASETS.register_module()
class ICFGPEDES(PersonTextDataset):
    """ICFG-PEDES: 4,102 people of MSMT17, one caption an image, no val split.

    Expects ``ICFG-PEDES.json`` (or ``ICFG_PEDES.json``) and the images below
    ``imgs/``, whose folders ``train/`` and ``test/`` are MSMT17's and do not give the
    split. See :class:`PersonTextDataset` for the arguments.

    Source: Ding et al., *Semantically Self-Aligned Network for Text-to-Image
    Part-aware Person Re-identification*, arXiv 2107.12666.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset': 'icfg_pedes'}
    folder = 'icfg_pedes'
    ann_files = ('ICFG-PEDES.json', 'ICFG_PEDES.json')
    access = 'ask its authors (https://github.com/zifyloo/SSAN)'
    published_counts: ClassVar[dict[str, tuple[int, int, int]]] = {
        'train': (3102, 34674, 34674),
        'test': (1000, 19848, 19848),
    }
