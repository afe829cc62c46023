"""Whether two encoders give the same embeddings, of inputs that nobody trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from mmengine.logging import MMLogger

from gckd_mm.search.apis.encoder import Encoder

BATCH_SIZES = (1, 2, 7)
#: words of the longest caption of a batch; the last is cut by any tokenizer of ours
_LENGTHS = (0, 3, 15, 600)
_WORDS = ('a', 'man', 'woman', 'in', 'red', 'blue', 'coat', 'shoes', 'and', ',', '.')
_LETTERS = tuple('abcdefghijklmnopqrstuvwxyz0123456789-éß字')


class RandomEmbeddings(NamedTuple):
    """Embeddings, shapes (N, D) and (M, D), of the same random inputs each time."""

    images: np.ndarray
    captions: np.ndarray


class Differences(NamedTuple):
    """The largest difference between two embeddings of an input, in any dimension."""

    images: float
    captions: float


def embed_random_inputs(encoder: Encoder) -> RandomEmbeddings:
    """Embed images and captions of many sizes, in batches of 1, 2 and 7."""
    rng = np.random.default_rng(0)
    images, captions = [], []
    with _without_warnings():
        for size in BATCH_SIZES:
            prepared = [encoder.prepare(_image(rng)) for _ in range(size)]
            images.append(encoder.embed_images(prepared))
            for length in _LENGTHS:
                texts = [_caption(rng, length) for _ in range(size)]
                captions.append(encoder.embed_captions(texts))
    return RandomEmbeddings(np.concatenate(images), np.concatenate(captions))


def differences(first: RandomEmbeddings, second: RandomEmbeddings) -> Differences:
    """Return the largest differences; NaN where there is one."""
    return Differences(
        *(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))
    )


def smallest_cosine(first: RandomEmbeddings, second: RandomEmbeddings) -> float:
    """Return the smallest cosine of two embeddings of the same input, NaN if one is."""
    pairs = zip(first, second, strict=True)
    cosines = [np.einsum('nd,nd->n', a, b) for a, b in pairs]
    return float(np.concatenate(cosines).min())


def _image(rng: np.random.Generator) -> np.ndarray:
    """Blocks of colours: shape (H, W, 3), uint8, another size each time."""
    blocks = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
    rows, columns = rng.integers(3, 40, 2)
    return blocks.repeat(rows, axis=0).repeat(columns, axis=1)


def _caption(rng: np.random.Generator, length: int) -> str:
    """At most so many words, half of which no language has."""
    words = [
        str(rng.choice(_WORDS))
        if rng.random() < 0.5
        else ''.join(rng.choice(_LETTERS, rng.integers(1, 9)))
        for _ in range(rng.integers(length // 2, length + 1))
    ]
    return ' '.join(words)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Do not warn the user of captions that are cut and that he has never seen."""
    # Not logging.disable: mmengine's loggers would remember it for ever.
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
