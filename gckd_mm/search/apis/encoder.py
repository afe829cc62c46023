"""What an inferencer needs of a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gckd_mm.models.tokenizers.caption_reading import CaptionReading


class Encoder(Protocol):
    """Images and captions to L2-normalised embeddings of one space.

    Attributes:
        name: Of the model, for people.
        source: Model and weights to give to :class:`PersonSearchInferencer` to have it
            again, None if it was not read from files.
        fingerprint: Hash of everything that an embedding depends on: weights,
            vocabulary, preprocessing. Embeddings of equal fingerprints may be compared.
        embedding_size: D.
    """

    name: str
    source: tuple[str, str | None] | None
    fingerprint: str
    embedding_size: int

    def prepare(self, image: str | np.ndarray) -> Any:
        """Read and resize an image; may be called from several threads.

        Args:
            image: A path, or RGB of shape (H, W, 3), uint8.
        """

    def embed_images(self, prepared: Sequence[Any]) -> np.ndarray:
        """Embed N images that :meth:`prepare` gave; shape (N, D), float32."""

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed N >= 1 captions; shape (N, D), float32."""

    def read_captions(self, captions: Sequence[str]) -> list[CaptionReading]:
        """Return which words of each caption the model knows, and where it is cut."""

    @property
    def has_matching(self) -> bool:
        """Whether :meth:`match` has something that compares pairs."""
        return False

    def match(self, caption: str, prepared: Sequence[Any]) -> np.ndarray:
        """Compare a caption with N images, each by itself; logits, shape (N,)."""
