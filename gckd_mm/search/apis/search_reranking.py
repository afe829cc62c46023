"""Order what a search has found anew, by a slower and finer look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from gckd_mm.errors import InputError
from gckd_mm.evaluation.gallery_reranking import build_reranker, rerank_candidates
from gckd_mm.evaluation.reranking import rerank
from gckd_mm.search.apis.encoder import Encoder
from gckd_mm.search.apis.images import read_ahead
from gckd_mm.search.choices import MATCHING, RERANK_METHODS
from gckd_mm.search.gallery import Gallery, Match

#: The nearest images of those that were found first are among the candidates as a rule.
_TOP_BY_CANDIDATES = 200
#: the head runs once for each of them
_TOP_BY_MATCHING = 128
_AHEAD = 128

#: a method, or ``dict(method=…, top=…, …)``
AnyReranking: TypeAlias = str | Mapping[str, Any]


class SearchReranking(NamedTuple):
    """How the ``top`` first matches of a search are ordered anew.

    Settings: ``weight`` of :func:`~gckd_mm.evaluation.reranking.rerank` for matching,
    for others see :func:`~gckd_mm.evaluation.gallery_reranking.build_reranker`.
    """

    method: str
    top: int
    settings: dict[str, Any]

    @classmethod
    def build(cls, chosen: AnyReranking) -> SearchReranking:
        """Read ``'k_reciprocal'`` or ``dict(method='k_reciprocal', top=200, k1=8)``."""
        settings: dict[str, Any] = (
            {'method': chosen} if isinstance(chosen, str) else dict(chosen)
        )
        method = settings.pop('method', None)
        if method not in RERANK_METHODS:
            raise InputError(
                f'rerank: the method must be one of {", ".join(RERANK_METHODS)}, got '
                f'{method!r}'
            )
        default = _TOP_BY_MATCHING if method == MATCHING else _TOP_BY_CANDIDATES
        top = settings.pop('top', default)
        if top < 1:
            raise InputError(f'rerank: top must be at least 1, got {top}')
        if method != MATCHING:
            build_reranker(method, **settings)
        elif settings.keys() - {'weight'}:
            raise InputError(
                f'rerank: matching has one setting, weight, got {settings}'
            )
        return cls(method, top, settings)

    def reordered(
        self,
        gallery: Gallery,
        encoder: Encoder,
        feat: np.ndarray,
        text: str,
        matches: list[Match],
    ) -> list[Match]:
        """Order the first matches anew; their scores stay what they were.

        The matching head compares with ``text``, others with ``feat``, shape (D,).

        Raises:
            InputError: If the model has no matching head to compare with, or there is
                nothing to compare.
        """
        head, rest = matches[: self.top], matches[self.top :]
        if self.method == MATCHING:
            order = self._by_matching(gallery, encoder, text, head)
        else:
            feats = gallery.engine.feats_of([match.item.path for match in head])
            order, _ = rerank_candidates(feat, feats, self.method, **self.settings)
        return [head[row] for row in order] + rest

    def _by_matching(
        self, gallery: Gallery, encoder: Encoder, text: str, head: list[Match]
    ) -> np.ndarray:
        if not text.strip():
            raise InputError(
                'rerank: the matching head compares pictures with a description: the '
                'query has none'
            )
        files = [gallery.file_of(match.item) for match in head]
        images = list(read_ahead(files, encoder.prepare, _AHEAD))
        there = [
            n for n, image in enumerate(images) if not isinstance(image, InputError)
        ]
        # An image that is gone matches nothing.
        logits = torch.full((len(head),), -torch.inf)
        logits[there] = torch.from_numpy(
            encoder.match(text, [images[n] for n in there])
        )
        similarity = torch.tensor([[match.score for match in head]])
        order = torch.arange(len(head))[None]
        weight = self.settings.get('weight', 1.0)
        return rerank(order, lambda _, row: logits[row], weight, similarity)[0].numpy()
