"""The ranges from which the domains of a world are sampled.

A place is what a domain has in every world; a world samples one camera and one
annotator for it, and bends its taste.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gckd_mm.synthpedes.annotator import WEB_RANGE, AnnotatorRange
from gckd_mm.synthpedes.camera import CameraRange
from gckd_mm.synthpedes.scene import SCENES

WORLD_NAMES = ('street', 'mall', 'campus')
DOMAIN_NAMES = (*WORLD_NAMES, 'web')


class Place(NamedTuple):
    """What a domain has in every world."""

    dataset_type: str  # the real dataset whose schema it is written in
    first_pid: int
    num_captions: int  # of each image
    has_val: bool
    camera: CameraRange
    annotator: AnnotatorRange
    #: attribute -> option -> factor on the weight in the wardrobe
    taste: Mapping[str, Mapping[str, float]]
    #: a world multiplies each factor of the taste by 1 ± fashion at most
    fashion: float = 0.3
    #: share of people who differ from another one in a single thing
    twins: float = 0.15
    #: share of the training captions that describe somebody else
    wrong_pairs: float = 0.0


_STREET = Place(
    dataset_type='CUHKPEDES',
    first_pid=1,
    num_captions=2,
    has_val=True,
    camera=CameraRange(  # a good camera at a shop door, in daylight
        scene=('street',),
        pitch=(2, 8),
        gains=((0.98, 1.04), (0.97, 1.03), (0.97, 1.04)),
        brightness=(0.98, 1.08),
        contrast=(1.0, 1.12),
        gamma=(0.92, 1.04),
        saturation=(1.0, 1.15),
        blur=(0.3, 0.8),
        resolution=(0.8, 1.0),
        noise=(2, 5),
        vignette=(0.0, 0.15),
        framing=(0.012, 0.025),
        occlusion=(0.06, 0.12),
        lighting=(0.05, 0.09),
        quality=(88, 94),
    ),
    annotator=AnnotatorRange(
        styles=('flowing',),
        orders=('top-down', 'clothes first'),
        loyalty=(0.75, 0.9),
        coarse=(0.0, 0.25),
        mistakes=(0.005, 0.02),
        divergence=(0.7, 0.85),
    ),
    taste={
        'upper.man': {'jacket': 1.5, 't-shirt': 1.3},
        'upper.woman': {'jacket': 1.5, 'coat': 1.4, 'dress': 0.7},
        'bag': {'shoulder bag': 1.6, 'handbag': 1.3, 'suitcase': 1.5},
        'shoes.man': {'sneakers': 1.3},
        'upper colour': {'black': 1.3, 'red': 1.4, 'blue': 1.3, 'white': 1.2},
    },
)
_MALL = Place(
    dataset_type='RSTPReid',
    first_pid=0,
    num_captions=2,
    has_val=True,
    camera=CameraRange(  # under the ceiling, in warm lamp light, out of focus
        scene=('mall',),
        pitch=(12, 18),
        gains=((1.06, 1.18), (0.98, 1.05), (0.74, 0.86)),
        brightness=(0.9, 1.08),
        contrast=(0.7, 0.85),
        gamma=(0.95, 1.1),
        saturation=(0.68, 0.88),
        blur=(1.2, 1.8),
        resolution=(0.6, 0.8),
        noise=(3, 6),
        vignette=(0.1, 0.3),
        framing=(0.015, 0.03),
        occlusion=(0.1, 0.18),
        lighting=(0.04, 0.08),
        quality=(80, 90),
    ),
    annotator=AnnotatorRange(
        styles=('sentences',),
        orders=('top-down', 'bottom-up', 'bag first'),
        loyalty=(0.75, 0.9),
        coarse=(0.1, 0.4),
        mistakes=(0.005, 0.02),
        divergence=(0.7, 0.85),
    ),
    taste={
        'gender': {'woman': 1.4},
        'upper.woman': {'dress': 1.8, 't-shirt': 1.3, 'coat': 0.7},
        'upper.man': {'shirt': 1.6, 'suit jacket': 1.5},
        'lower.woman': {'skirt': 1.6, 'long skirt': 1.4},
        'bag': {'shopping bag': 3.5, 'handbag': 1.8, 'backpack': 0.6},
        'shoes.woman': {'high heels': 1.8},
        'upper colour': {'pink': 1.6, 'beige': 1.6, 'white': 1.5, 'light blue': 1.3},
    },
)
_CAMPUS = Place(
    dataset_type='ICFGPEDES',
    first_pid=1,
    num_captions=1,
    has_val=False,
    camera=CameraRange(  # an old one on a lamp post, in the blue light of the evening
        scene=('park',),
        pitch=(8, 16),
        gains=((0.78, 0.9), (0.95, 1.04), (1.04, 1.16)),
        brightness=(0.54, 0.68),
        contrast=(0.9, 1.1),
        gamma=(0.95, 1.1),
        saturation=(0.6, 0.82),
        blur=(0.5, 1.0),
        resolution=(0.42, 0.55),
        noise=(6, 10),
        vignette=(0.1, 0.35),
        framing=(0.02, 0.035),
        occlusion=(0.1, 0.18),
        lighting=(0.08, 0.14),
        quality=(72, 84),
    ),
    annotator=AnnotatorRange(
        styles=('telegraphic',),
        orders=('clothes first', 'bag first', 'bottom-up'),
        loyalty=(0.75, 0.9),
        coarse=(0.2, 0.5),
        mistakes=(0.005, 0.02),
        divergence=(0.7, 0.85),
    ),
    taste={
        'upper.man': {'hoodie': 2.0, 't-shirt': 1.3, 'suit jacket': 0.4},
        'upper.woman': {'hoodie': 2.0, 'sweater': 1.4, 'dress': 0.6},
        'lower.man': {'jeans': 1.5, 'shorts': 1.3},
        'lower.woman': {'jeans': 1.5, 'leggings': 1.4},
        'bag': {'backpack': 2.5, 'shopping bag': 0.4, 'suitcase': 0.4},
        'hat.man': {'cap': 1.6},
        'held': {'book': 2.5, 'phone': 1.5},
        'upper colour': {'grey': 1.5, 'green': 1.4, 'navy': 1.5, 'dark grey': 1.4},
    },
)
_WEB = Place(
    dataset_type='CUHKPEDES',
    first_pid=1,
    num_captions=1,
    has_val=True,
    camera=CameraRange(
        scene=SCENES,
        pitch=(0, 30),
        gains=((0.75, 1.2), (0.85, 1.1), (0.7, 1.2)),
        brightness=(0.55, 1.15),
        contrast=(0.65, 1.25),
        gamma=(0.85, 1.2),
        saturation=(0.5, 1.2),
        blur=(0.0, 2.0),
        resolution=(0.4, 1.0),
        noise=(0, 11),
        vignette=(0.0, 0.4),
        framing=(0.01, 0.04),
        occlusion=(0.0, 0.2),
        lighting=(0.0, 0.1),
        quality=(70, 95),
    ),
    annotator=WEB_RANGE,
    taste={},
    fashion=0.0,
    twins=0.0,
    wrong_pairs=0.1,
)

PLACES: dict[str, Place] = {
    'street': _STREET,
    'mall': _MALL,
    'campus': _CAMPUS,
    'web': _WEB,
}
