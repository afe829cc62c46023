"""Captions with words left out, so that no single word carries a match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from gckd_mm.errors import InputError
from gckd_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomWordMask(BaseTransform):
    """Mask each word of ``caption`` with some probability, and never all of them.

    Words, not tokens: a word is what stands between spaces, and goes whole. It happens
    in the pipeline, where the draw of a sample seeds it; tokens come later.

    Args:
        prob: Of each word. Defaults to 0.15.
        mask: The word in its place; empty leaves the place out. With CLIP's vocabulary,
            ``'jekyll'`` is the one token that IRRA made its mask. Defaults to ``''``.

    Raises:
        InputError: If ``prob`` is not between 0 and 1.

    Source: the probability of Devlin et al., *BERT*, NAACL 2019; deletion as of Wei and
    Zou, *EDA*, EMNLP 2019; keeping one word is ours.
    """

    def __init__(self, prob: float = 0.15, mask: str = '') -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise InputError(f'prob must be between 0 and 1, got {prob}')
        self.prob = prob
        self.mask = mask

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mask words of ``caption``; without one, do nothing."""
        if 'caption' in results:
            words = results['caption'].split()
            # mmcv's and mmpretrain's transforms draw from the global generator, too.
            draws = np.random.rand(len(words))  # noqa: NPY002
            results['caption'] = mask_words(words, draws, self.prob, self.mask)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, mask={self.mask!r})'


def mask_words(
    words: Sequence[str], draws: np.ndarray, prob: float, mask: str = ''
) -> str:
    """Mask the words whose draw is below a probability, all but one if need be.

    Args:
        words: N of them.
        draws: Uniform in [0, 1), shape (N,).
        prob: Of each word, to mask it.
        mask: In the place of a masked word; empty leaves it out.

    Returns:
        The words that are left, with single spaces.
    """
    masked = draws < prob
    if masked.all() and len(words):
        masked[draws.argmax()] = False
    kept = [mask if gone else word for word, gone in zip(words, masked, strict=True)]
    return ' '.join(word for word in kept if word)
