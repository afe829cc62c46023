"""Words that are left out of captions."""

from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.datasets.draw import seeded_augmentation
from gckd_mm.datasets.transforms import RandomWordMask
from gckd_mm.datasets.transforms.random_word_mask import mask_words
from gckd_mm.errors import InputError

CAPTION = 'a tall man in a red coat , blue jeans and white shoes'


def masked(seed: int, caption: str = CAPTION, **options: object) -> str:
    with seeded_augmentation(seed):
        return RandomWordMask(**options)({'caption': caption})['caption']


def test_against_a_loop_over_words() -> None:
    words = CAPTION.split()
    draws = np.random.default_rng(0).random(len(words))

    expected = []
    for word, draw in zip(words, draws, strict=True):
        expected.append('[MASK]' if draw < 0.4 else word)

    assert mask_words(words, draws, 0.4, '[MASK]') == ' '.join(expected)
    assert mask_words(words, draws, 0.4) == ' '.join(
        word for word in expected if word != '[MASK]'
    )


def test_the_share_is_the_one_asked_for() -> None:
    counts = [
        masked(seed, mask='#', prob=0.15).split().count('#') for seed in range(400)
    ]

    # Four standard deviations of a binomial around its mean.
    n = 400 * len(CAPTION.split())
    assert abs(sum(counts) - 0.15 * n) < 4 * np.sqrt(n * 0.15 * 0.85)


def test_the_order_of_what_is_left_is_kept() -> None:
    words = iter(CAPTION.split())

    assert all(word in words for word in masked(1, prob=0.5).split())


@pytest.mark.parametrize('prob', [0.9, 1.0])
@pytest.mark.parametrize('caption', [CAPTION, 'man', '一个穿红衣服的男人'])
def test_a_word_is_always_left(prob: float, caption: str) -> None:
    for seed in range(20):
        assert masked(seed, caption, prob=prob)


def test_nothing_to_mask() -> None:
    assert masked(0, '') == ''
    assert masked(0, '   ') == ''
    assert masked(0, CAPTION, prob=0.0) == CAPTION
    assert RandomWordMask()({'img': 1}) == {'img': 1}


def test_a_seed_decides() -> None:
    assert masked(3, prob=0.5) == masked(3, prob=0.5)
    assert len({masked(seed, prob=0.5) for seed in range(10)}) > 5


def test_no_probability() -> None:
    for prob in (-0.1, 1.5):
        with pytest.raises(InputError, match='prob must be between 0 and 1'):
            RandomWordMask(prob=prob)
    assert repr(RandomWordMask()) == "RandomWordMask(prob=0.15, mask='')"
