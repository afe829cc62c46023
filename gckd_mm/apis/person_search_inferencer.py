"""Search pictures of people with sentences, from a program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from mmengine.config import Config
from rich.progress import track

from gckd_mm.apis.encoder import Encoder
from gckd_mm.apis.onnx_encoder import OnnxEncoder
from gckd_mm.apis.pictures import Picture, read_ahead
from gckd_mm.apis.search_reranking import AnyReranking, SearchReranking
from gckd_mm.apis.torch_encoder import TorchEncoder
from gckd_mm.errors import InputError
from gckd_mm.gallery import Condition, Gallery, Match

#: characters; longer ones are a mistake, the model reads the first tokens alone
MAX_QUERY_LENGTH = 2000
#: what is unwanted counts half: at 1 it leaves nothing of a query that is like it
WITHOUT_WEIGHT = 0.5
_BATCH_SIZE = 64


class Query(NamedTuple):
    """What to search for: words, a picture, or both, and what not to find.

    Attributes:
        text: A description, such as ``'a woman in a red coat'``.
        without: A description of what is unwanted, such as ``'a backpack'``.
        image: A picture of someone who looks alike.
    """

    text: str = ''
    without: str = ''
    image: Picture | None = None


AnyQuery: TypeAlias = str | Query | Picture


class EncodedBatch(NamedTuple):
    """Some of the pictures that were given, embedded.

    Attributes:
        rows: Which ones, counted from 0, shape (N,).
        feats: Shape (N, D), float32.
        unreadable: Row -> what is wrong with it, of those that could not be read.
    """

    rows: list[int]
    feats: np.ndarray
    unreadable: dict[int, InputError]


class PersonSearchInferencer:
    """Embed pictures and sentences with a trained model, and search with them.

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
        show_progress: Whether to draw a progress bar. Defaults to True.

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
    ) -> PersonSearchInferencer:
        """Read the model that a gallery was built with.

        Raises:
            InputError: If it is not where it was, or has changed.
        """
        source = gallery.settings['source']
        if source is None:
            raise InputError(
                f'{gallery.folder}: does not say where its model lies: name it'
            )
        try:
            model, weights = source
            inferencer = cls(model, weights, device, show_progress)
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
        encoder = self.encoder
        model = {'model': encoder.name, 'source': encoder.source}
        return Gallery.create(
            folder,
            model,
            self.fingerprint,
            self.embedding_size,
            root,
            index,
            uri,
            token,
        )

    def encode_images(
        self,
        images: Sequence[Picture],
        batch_size: int = _BATCH_SIZE,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Embed pictures.

        Args:
            images: N of them: paths, RGB arrays or Pillow images.
            batch_size: Pictures at a time. Defaults to 64.
            progress: Whether to draw a progress bar. Defaults to that of the
                inferencer.

        Returns:
            L2-normalised, shape (N, D), float32.

        Raises:
            InputError: If one cannot be read.
        """
        feats = [np.empty((0, self.embedding_size), np.float32)]
        batches: Iterable = self.iter_encoded(images, batch_size)
        shown = self.show_progress if progress is None else progress
        if shown and len(images) > batch_size:
            total = -(-len(images) // batch_size)
            batches = track(batches, 'encoding images', total=total, transient=True)
        for batch in batches:
            for error in batch.unreadable.values():
                raise error
            feats.append(batch.feats)
        return np.concatenate(feats)

    def iter_encoded(
        self,
        images: Iterable[Picture],
        batch_size: int = _BATCH_SIZE,
        num_threads: int | None = None,
    ) -> Iterator[EncodedBatch]:
        """Embed any number of pictures, those that cannot be read left out.

        Threads read and resize the next pictures while the model embeds.

        Args:
            images: Paths, RGB arrays or Pillow images.
            batch_size: Pictures at a time. Defaults to 64.
            num_threads: That read; 0 for none beside this one. Defaults to a number
                that suits the machine.

        Yields:
            Batches, in order.

        Raises:
            InputError: If ``batch_size`` is below 1 or ``num_threads`` negative.
        """
        if batch_size < 1 or (num_threads is not None and num_threads < 0):
            raise InputError(
                'batch_size must be at least 1 and num_threads not negative, got '
                f'{batch_size} and {num_threads}'
            )
        prepare = self.encoder.prepare
        ready = enumerate(read_ahead(images, prepare, 2 * batch_size, num_threads))
        while batch := list(islice(ready, batch_size)):
            unreadable = {n: x for n, x in batch if isinstance(x, InputError)}
            good = [(n, x) for n, x in batch if n not in unreadable]
            feats = np.empty((0, self.embedding_size), np.float32)
            if good:
                feats = self.encoder.embed_images([x for _, x in good])
            yield EncodedBatch([n for n, _ in good], feats, unreadable)

    def encode_texts(
        self, texts: Sequence[str], batch_size: int = _BATCH_SIZE
    ) -> np.ndarray:
        """Embed captions.

        Args:
            texts: N of them; what is longer than the model's context is cut.
            batch_size: Captions at a time. Defaults to 64.

        Returns:
            L2-normalised, shape (N, D), float32.

        Raises:
            InputError: If ``texts`` is one string.
        """
        if isinstance(texts, str):
            raise InputError('texts must be a list of strings, got one string')
        feats = [np.empty((0, self.embedding_size), np.float32)]
        for start in range(0, len(texts), batch_size):
            feats.append(self.encoder.embed_captions(texts[start : start + batch_size]))
        return np.concatenate(feats)

    def encode_query(self, query: AnyQuery) -> np.ndarray:
        """Embed what to search for.

        Words and a picture count alike; of what is unwanted, half is taken away.

        Args:
            query: A description, a picture, or a :class:`Query`. A string is a
                description and never a path.

        Returns:
            L2-normalised, shape (D,), float32.

        Raises:
            InputError: If it is empty or too long, or its picture cannot be read.
        """
        return self._encode_queries([query])[0]

    def _encode_queries(self, queries: Sequence[AnyQuery]) -> np.ndarray:
        """Embed queries; what several of them have in common, once. Shape (Q, D)."""
        asked = [_as_query(query) for query in queries]
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
            feats.append((feat / np.linalg.norm(feat)).astype(np.float32))
        return np.stack(feats)

    def query_warnings(self, queries: Sequence[AnyQuery]) -> list[list[str]]:
        """Return sentences about each query that may not find what was meant."""
        return [[] for _ in queries]

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
            exact: Whether to compare with all pictures, whatever the index. Defaults
                to False.
            rerank: ``'k_reciprocal'``, ``'propagation'`` or ``'matching'``: order the
                first matches anew, as :meth:`SearchReranking.build` reads it. Defaults
                to None.

        Returns:
            Q lists of at most ``top_k`` matches, best first. Their scores are cosine
            similarities, after a re-ranking too.

        Raises:
            InputError: If the gallery was built by another model, a query is bad, or
                nothing can re-rank.
        """
        if isinstance(queries, str | Query):
            raise InputError('queries must be a list, got a single one')
        if not isinstance(gallery, Gallery):
            with Gallery.open(gallery) as opened:
                return self.search(opened, queries, top_k, where, exact, rerank)
        gallery.check_model(self.fingerprint, self.encoder.name)
        if top_k < 1:
            raise InputError(f'top_k must be at least 1, got {top_k}')
        reranking = None if rerank is None else SearchReranking.build(rerank)
        if not queries:
            return []
        feats = self._encode_queries(queries)
        if reranking is None:
            return gallery.search(feats, top_k, where, exact)
        found = gallery.search(feats, max(top_k, reranking.top), where, exact)
        return [
            reranking.reordered(
                gallery, self.encoder, feat, _as_query(query).text, matches
            )[:top_k]
            for query, feat, matches in zip(queries, feats, found, strict=True)
        ]


def _as_query(query: AnyQuery) -> Query:
    if isinstance(query, str):
        query = Query(query)
    elif not isinstance(query, Query):
        query = Query(image=query)
    for text in (query.text, query.without):
        if len(text) > MAX_QUERY_LENGTH:
            raise InputError(
                f'a query has at most {MAX_QUERY_LENGTH} characters, got {len(text)}'
            )
    return query
