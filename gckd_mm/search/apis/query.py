"""What to search for, the checks of it, and what is found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from gckd_mm.errors import InputError
from gckd_mm.search.apis.images import AnyImage
from gckd_mm.search.gallery import Match
from gckd_mm.search.gallery.items import check_encodable, shown_value

#: characters; longer ones are a mistake, the model reads the first tokens alone
MAX_QUERY_LENGTH = 2000


class Query(NamedTuple):
    """What to search for: words, an image, or both, and what not to find.

    Attributes:
        text: A description, such as ``'a woman in a red coat'``.
        without: A description of what is unwanted, such as ``'a backpack'``.
        image: Of someone who looks alike.
    """

    text: str = ''
    without: str = ''
    image: AnyImage | None = None

    def __str__(self) -> str:
        """Return what is asked, for people."""
        like, without = '', self.without.strip()
        if self.image is not None:
            is_path = isinstance(self.image, str | os.PathLike)
            like = f'like {self.image if is_path else "your picture"}'
        parts = [self.text, like, without and f'without {without}']
        return ', '.join(part for part in parts if part)


AnyQuery: TypeAlias = str | Query | AnyImage


class Found(NamedTuple):
    """What one query found.

    Attributes:
        query: What was asked, for people.
        matches: Best first.
        warnings: What to know before trusting them, as sentences.
    """

    query: str
    matches: list[Match]
    warnings: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as shell and server write it."""
        matches = [
            {
                'path': match.item.path,
                'score': round(match.score, 6),
                'fields': {
                    name: shown_value(name, value)
                    for name, value in match.item.fields.items()
                },
            }
            for match in self.matches
        ]
        return {**self._asdict(), 'matches': matches}


def as_queries(queries: Iterable[AnyQuery]) -> list[Query]:
    """Return queries in one form.

    Raises:
        InputError: If they are no list, or one is no query or too long.
    """
    if isinstance(queries, Query) or is_single(queries):
        raise InputError('queries must be a list, got a single one')
    return [_as_query(query) for query in queries]


def _as_query(query: AnyQuery) -> Query:
    if isinstance(query, str):
        query = Query(query)
    elif not isinstance(query, Query):
        query = Query(image=query)
    for text in (query.text, query.without):
        check_text(text, 'the text of a query')
        if len(text) > MAX_QUERY_LENGTH:
            raise InputError(
                f'a query has at most {MAX_QUERY_LENGTH} characters, got {len(text)}'
            )
    return query


def is_single(items: Any) -> bool:
    """Return whether something is one image or text where a list is expected."""
    if isinstance(items, np.ndarray):
        return items.ndim < 4 and items.dtype.kind in 'biufc'
    single = str | bytes | os.PathLike | Image.Image
    return isinstance(items, single) or not isinstance(items, Iterable)


def check_text(text: Any, where: str) -> None:
    """Refuse what is no text, or none that every tokenizer takes."""
    if not isinstance(text, str):
        raise InputError(f'{where} must be a string, got {type(text).__name__}')
    check_encodable(text, where)
