"""What exports are compared by."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from mmengine.logging import MMLogger

from gckd_mm.search.export.random_inputs import (
    RandomEmbeddings,
    differences,
    embed_random_inputs,
    smallest_cosine,
)


class Recorder:
    """An encoder that keeps what it is given, and says what a tokenizer would."""

    name, source, fingerprint, embedding_size = 'recorder', None, '', 2

    def __init__(self) -> None:
        self.pictures: list[list[np.ndarray]] = []
        self.captions: list[list[str]] = []

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def embed_images(self, prepared: list[np.ndarray]) -> np.ndarray:
        self.pictures.append(prepared)
        return np.zeros((len(prepared), 2), np.float32)

    def embed_captions(self, captions: list[str]) -> np.ndarray:
        MMLogger.get_current_instance().warning('a caption was cut')
        self.captions.append(list(captions))
        return np.zeros((len(captions), 2), np.float32)


def test_inputs_are_of_many_sizes_and_always_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = Recorder(), Recorder()
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        embedded = embed_random_inputs(first)
        embed_random_inputs(second)
        assert not caplog.records
        logger.warning('logged')
        assert len(caplog.records) == 1
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    assert first.captions == second.captions
    for a, b in zip(first.pictures, second.pictures, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert [len(batch) for batch in first.pictures] == [1, 2, 7]
    assert {len(batch) for batch in first.captions} == {1, 2, 7}
    shapes = {picture.shape for batch in first.pictures for picture in batch}
    assert len(shapes) == 10
    lengths = {len(text.split()) for batch in first.captions for text in batch}
    assert min(lengths) == 0
    assert max(lengths) > 512
    assert (len(embedded.images), len(embedded.captions)) == (10, 40)


def test_the_largest_difference_and_the_smallest_cosine() -> None:
    rng = np.random.default_rng(0)
    first = RandomEmbeddings(rng.normal(size=(3, 4)), rng.normal(size=(5, 4)))
    first = RandomEmbeddings(
        *(part / np.linalg.norm(part, axis=1, keepdims=True) for part in first)
    )
    second = RandomEmbeddings(first.images.copy(), first.captions.copy())
    second.images[1, 2] += 0.25
    second.captions[4] *= -1
    found = differences(first, second)
    assert found.images == pytest.approx(0.25)
    assert found.captions == pytest.approx(2 * max(abs(first.captions[4])))
    assert smallest_cosine(first, second) == pytest.approx(-1)
    second.images[0, 0] = np.nan
    assert math.isnan(differences(first, second).images)
    assert not math.isnan(differences(first, second).captions)
    assert math.isnan(smallest_cosine(first, second))
