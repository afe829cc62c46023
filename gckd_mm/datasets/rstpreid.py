"""RSTPReid."""

from typing import Any, ClassVar

from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.datasets.records import RecordSchema
from gckd_mm.registry import DATASETS


@DATASETS.register_module()
class RSTPReid(PersonTextDataset):
    """RSTPReid: 4,101 people of MSMT17, five images each, two captions an image.

    Expects ``data_captions.json`` and the images below ``imgs/``. See
    :class:`PersonTextDataset` for the arguments.

    Source: Zhu et al., *DSSL: Deep Surroundings-person Separation Learning for
    Text-based Person Retrieval*, ACM MM 2021.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset': 'rstpreid'}
    folder = 'rstpreid'
    ann_files = ('data_captions.json',)
    default_schema = RecordSchema(image='img_path')
    access = 'ask its authors (https://github.com/NjtechCVLab/RSTPReid-Dataset)'
    published_counts: ClassVar[dict[str, tuple[int, int, int]]] = {
        'train': (3701, 18505, 37010),
        'val': (200, 1000, 2000),
        'test': (200, 1000, 2000),
    }
    #: an older release, told apart by its numbers of ids
    older_ids: ClassVar[dict[str, int]] = {'train': 3901, 'val': 100, 'test': 100}
