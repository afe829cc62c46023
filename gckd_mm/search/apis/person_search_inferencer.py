"""A trained model that embeds images and sentences, and searches with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import partial
from itertools import islice
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from rich.progress import track

from gckd_mm.errors import InputError
from gckd_mm.search.apis.encoder import Encoder
from gckd_mm.search.apis.images import AnyImage, prepare_with_size, read_ahead
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.query import AnyQuery, Query, as_queries, check_text, is_single
from gckd_mm.search.apis.query_warnings import query_warnings
from gckd_mm.search.apis.search_reranking import AnyReranking, SearchReranking
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.gallery import Condition, Gallery, Match
from gckd_mm.search.gallery.gallery import checked_top_k

#: what is unwanted counts half: at 1 it leaves nothing of a query that is like it
WITHOUT_WEIGHT = 0.5
#: the length of a query, before it is normalised, below which it is but rounding
_SHORTEST_QUERY = 1e-4
_BATCH_SIZE = 64


class EncodedBatch(NamedTuple):
    """Some of the images that were given, embedded.

    Attributes:
        rows: Which ones, counted from 0.
        feats: Shape (N, D), float32.
        unreadable: Row -> what is wrong with it, of those that could not be read.
        num_wide: How many of ``rows`` are wider than tall.
    """

    rows: list[int]
    feats: np.ndarray
    unreadable: dict[int, InputError]
    num_wide: int = 0


class PersonSearchInferencer:
    """Embed images and sentences with a trained model, and search with them.

    Named and shaped after mmengine's ``BaseInferencer``; a search has two inputs and a
    gallery that is kept, for which its one ``__call__`` of a batch has no place.

    Args:
        model: A checkpoint of ``tools/train.py``, which carries its config and its
            tokenizer; ``gckd_mm://<name>`` for one that comes with the package; a
            folder that ``tools/export_onnx.py`` wrote; or a config (``.py``), with
            ``weights``.
        weights: The checkpoint, where ``model`` is a config.
        device: Such as ``'cuda:0'``. Defaults to the GPU if there is one, and to the
            CPU for an export.
        show_progress: Whether to show a progress bar. Defaults to True.

    Raises:
        InputError: If the model cannot be read.

    Example:
        >>> inferencer = PersonSearchInferencer('work_dirs/demo/iter_700.pth')
        >>> inferencer.search('galleries/mall', ['a woman in a red coat'], top_k=5)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Config | Encoder,
        weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        show_progress: bool = True,
    ) -> None:
        self.encoder: Encoder
        if (
            isinstance(model, str | os.PathLike)
            and weights is None
            and os.path.isdir(model)
        ):
            self.encoder = OnnxEncoder(model, device)
        elif isinstance(model, str | os.PathLike | Config):
            self.encoder = TorchEncoder.read(model, weights, device)
        else:
            self.encoder = model
        self.show_progress = show_progress

    @property
    def fingerprint(self) -> str:
        """Hash of all that embeddings depend on; a gallery remembers it."""
        return self.encoder.fingerprint

    @property
    def embedding_size(self) -> int:
        """The D of the embeddings."""
        return self.encoder.embedding_size

    @classmethod
    def of_gallery(
        cls,
        gallery: Gallery,
        device: str | torch.device | None = None,
        show_progress: bool = True,
        model: str | os.PathLike[str] | None = None,
    ) -> PersonSearchInferencer:
        """Read the model that a gallery was built with; ``model`` is where it moved."""
        if model is not None:
            inferencer = cls(model, None, device, show_progress)
        elif gallery.settings['source'] is None:
            raise InputError(
                f'{gallery.folder}: does not say where its model lies: name it'
            )
        else:
            try:
                name, weights = gallery.settings['source']
                inferencer = cls(name, weights, device, show_progress)
            except InputError as error:
                raise InputError(
                    f'{gallery.folder}: its model cannot be read: {error}'
                ) from error
        gallery.check_model(inferencer.fingerprint, inferencer.encoder.name)
        return inferencer

    def new_gallery(
        self,
        folder: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        index: str = 'auto',
        uri: str | None = None,
        token: str | None = None,
    ) -> Gallery:
        """Make an empty gallery for this model: see :meth:`Gallery.create`."""
        model = {'model': self.encoder.name, 'source': self.encoder.source}
        made_by = model, self.fingerprint, self.embedding_size
        return Gallery.create(folder, *made_by, root, index, uri, token)

    def encode_images(
        self,
        images: Iterable[AnyImage],
        batch_size: int = _BATCH_SIZE,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Embed images.

        Args:
            images: N of them: paths, RGB arrays or Pillow images. A generator will
                do.
            batch_size: Images at a time. Defaults to 64.
            progress: Whether to show a progress bar. Defaults to that of the
                inferencer.

        Returns:
            L2-normalised, shape (N, D), float32.

        Raises:
            InputError: If ``images`` is a single one, one cannot be read, or an
                embedding is not finite.
        """
        feats = [np.empty((0, self.embedding_size), np.float32)]
        batches: Iterable = self.iter_encoded(images, batch_size)
        shown = self.show_progress if progress is None else progress
        if shown and isinstance(images, Sized) and len(images) > batch_size:
            total = -(-len(images) // batch_size)
            batches = track(batches, 'encoding images', total=total, transient=True)
        for batch in batches:
            for error in batch.unreadable.values():
                raise error
            feats.append(batch.feats)
        return np.concatenate(feats)

    def iter_encoded(
        self, images: Iterable[AnyImage], batch_size: int = _BATCH_SIZE
    ) -> Iterator[EncodedBatch]:
        """Embed any number of images, those that cannot be read left out.

        Threads read and resize the next images while the model embeds.

        Args:
            images: Paths, RGB arrays or Pillow images.
            batch_size: Images at a time. Defaults to 64.

        Yields:
            Batches, in order.

        Raises:
            InputError: If ``images`` is a single one, ``batch_size`` is below 1, or an
                embedding is not finite.
        """
        if is_single(images):
            raise InputError(
                f'images must be a list of pictures, got a single one '
                f'({type(images).__name__})'
            )
        _check_batch_size(batch_size)
        prepare = partial(prepare_with_size, self.encoder.prepare)
        ready = enumerate(read_ahead(images, prepare, 2 * batch_size))
        while batch := list(islice(ready, batch_size)):
            unreadable = {n: x for n, x in batch if isinstance(x, InputError)}
            rows = [n for n, _ in batch if n not in unreadable]
            good = [x for n, x in batch if n not in unreadable]
            feats = np.empty((0, self.embedding_size), np.float32)
            if good:
                feats = self.encoder.embed_images([x.inputs for x in good])
                _check_finite(feats, [f'image {row}' for row in rows])
            num_wide = sum(x.is_wide for x in good)
            yield EncodedBatch(rows, feats, unreadable, num_wide)

    def encode_texts(
        self, texts: Iterable[str], batch_size: int = _BATCH_SIZE
    ) -> np.ndarray:
        """Embed captions.

        Args:
            texts: N of them; what is longer than the model's context is cut.
            batch_size: Captions at a time. Defaults to 64.

        Returns:
            L2-normalised, shape (N, D), float32.

        Raises:
            InputError: If ``texts`` is one string, one of them is no text,
                ``batch_size`` is below 1, or an embedding is not finite.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise InputError(
                f'texts must be a list of strings, got one {type(texts).__name__}'
            )
        _check_batch_size(batch_size)
        captions = list(texts)
        for row, caption in enumerate(captions):
            check_text(caption, f'texts[{row}]')
        feats = [np.empty((0, self.embedding_size), np.float32)]
        for start in range(0, len(captions), batch_size):
            some = captions[start : start + batch_size]
            feats.append(self.encoder.embed_captions(some))
            _check_finite(feats[-1], some)
        return np.concatenate(feats)

    def encode_query(self, query: AnyQuery) -> np.ndarray:
        """Embed what to search for.

        Words and an image count alike; the embedding of what is unwanted is subtracted
        with weight 0.5.

        Args:
            query: A description, an image, or a :class:`Query`. A string is a
                description and never a path.

        Returns:
            L2-normalised, shape (D,), float32.

        Raises:
            InputError: If it is empty or too long, its image cannot be read, or
                nothing is left of it: what is wanted and what is not cancel out.
        """
        return self._encode_queries([query])[0]

    def query_warnings(self, queries: Sequence[AnyQuery]) -> list[list[str]]:
        """Return what a user should know before trusting the results, for each query.

        That is words which the model does not know, a text that is cut, and negation,
        for which there is ``without``: sentences, none where all is well.
        """
        return [
            query_warnings(self.encoder, query.text, query.without)
            for query in as_queries(queries)
        ]

    def _encode_queries(self, queries: Sequence[AnyQuery]) -> np.ndarray:
        """Embed queries; what several of them have in common, once. Shape (Q, D)."""
        asked = as_queries(queries)
        texts = [x for query in asked for x in (query.text, query.without) if x.strip()]
        texts = list(dict.fromkeys(texts))
        of_text = dict(zip(texts, self.encode_texts(texts), strict=True))
        of_image: dict[int, np.ndarray] = {}
        feats = []
        for query in asked:
            wanted = []
            if query.text.strip():
                wanted.append(of_text[query.text])
            if query.image is not None:
                key = id(query.image)
                if key not in of_image:
                    of_image[key] = self.encode_images([query.image])[0]
                wanted.append(of_image[key])
            if not wanted:
                raise InputError('a query needs a description or a picture')
            feat = np.mean(wanted, axis=0)
            if query.without.strip():
                feat = feat - WITHOUT_WEIGHT * of_text[query.without]
            length = np.linalg.norm(feat)
            if length < _SHORTEST_QUERY:
                raise InputError(
                    f'nothing is left of the query {_shown(query)}: its parts cancel '
                    f'each other out'
                )
            feats.append((feat / length).astype(np.float32))
        return np.stack(feats)

    def search(
        self,
        gallery: Gallery | str | os.PathLike[str],
        queries: Sequence[AnyQuery],
        top_k: int = 10,
        where: Sequence[Condition] = (),
        exact: bool = False,
        rerank: AnyReranking | None = None,
    ) -> list[list[Match]]:
        """Find the people that fit best.

        Args:
            gallery: A gallery, or its folder.
            queries: Q of them: see :meth:`encode_query`.
            top_k: How many to find for each. Defaults to 10.
            where: What all of them must fulfil. Defaults to nothing.
            exact: Whether to compare with all images, whatever the index. Defaults
                to False.
            rerank: ``'k_reciprocal'``, ``'propagation'`` or ``'matching'``: order the
                first matches anew, as :meth:`SearchReranking.build` reads it. Defaults
                to None.

        Returns:
            Q lists of at most ``top_k`` matches, best first. Their scores are cosine
            similarities, after a re-ranking too.

        Raises:
            InputError: If the gallery was built by another model, a query is bad, no
                item has a field that a condition names, or nothing can re-rank.
        """
        queries = as_queries(queries)
        if not isinstance(gallery, Gallery):
            with Gallery.open(gallery) as opened:
                return self.search(opened, queries, top_k, where, exact, rerank)
        gallery.check_model(self.fingerprint, self.encoder.name)
        top_k = checked_top_k(top_k)
        reranking = None if rerank is None else SearchReranking.build(rerank)
        if not queries:
            return []
        feats = self._encode_queries(queries)
        if reranking is None:
            return gallery.search(feats, top_k, where, exact)
        found = gallery.search(feats, max(top_k, reranking.top), where, exact)
        return [
            reranking.reordered(gallery, self.encoder, feat, query.text, matches)[
                :top_k
            ]
            for query, feat, matches in zip(queries, feats, found, strict=True)
        ]


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise InputError(f'batch_size must be at least 1, got {batch_size!r}')


def _check_finite(feats: np.ndarray, names: Sequence[str]) -> None:
    """Refuse embeddings that no search can compare."""
    finite = np.isfinite(feats).all(axis=1)
    if not finite.all():
        first = names[int(np.argmin(finite))]
        raise InputError(
            f'{np.count_nonzero(~finite)} of {len(feats)} embeddings of a batch are '
            f'not finite, the first that of {first!r}: the weights of the model are '
            f'damaged, or it overflows in half precision'
        )


def _shown(query: Query) -> str:
    return ', '.join(
        repr(part) if isinstance(part, str) else type(part).__name__
        for part in query
        if part is not None and not (isinstance(part, str) and not part)
    )
