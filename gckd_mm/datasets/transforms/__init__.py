"""Transforms of images and captions; mmcv's and mmpretrain's work beside them."""

from gckd_mm.datasets.transforms.load_person_image import LoadPersonImage
from gckd_mm.datasets.transforms.pack_person_text import PackPersonText
from gckd_mm.datasets.transforms.random_word_mask import RandomWordMask

__all__ = ['LoadPersonImage', 'PackPersonText', 'RandomWordMask']
