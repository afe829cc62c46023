"""Which words of a caption a vocabulary knows, and where the caption is cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from tokenizers import Encoding

#: letters a piece, on average, of a word that is spelled rather than known
_SPELLED = 1.5
_LONGEST_SPELLED = 2
#: words up to this length are spelled only if each piece is one letter
_SHORT = 3


class CaptionReading(NamedTuple):
    """What a tokenizer makes of a caption.

    Attributes:
        known: How many of its words are known.
        unknown: The other words, each once, in their order; those that touch each other
            are one.
        end: Number of characters that are read, if the rest is cut.
    """

    known: int
    unknown: list[str]
    end: int | None = None


class _Word(NamedTuple):
    start: int
    end: int
    pieces: list[tuple[int, int]]
    has_unknown: bool


def read_encoding(
    caption: str, encoding: Encoding, unknown_token: str | None
) -> CaptionReading:
    """Tell known words of an encoded caption from unknown ones.

    A word is unknown if a piece of it is the model's unknown token, or if it is
    spelled: it falls apart into two or more pieces, none of more than two letters and
    on average of at most 1.5 (one letter each in words of up to three). That rule is
    ours. With the vocabulary of the packaged models it names 95 % of random letters and
    keyboard noise, none of the clothing words or their plurals, a fifth of their typing
    errors, and a quarter of other English words, which these models have never seen.

    A byte-level vocabulary (CLIP's) has no unknown token. There the rule names other
    scripts (Chinese, Cyrillic, Arabic, …), 0.2 % of typing errors, and a fifth of
    keyboard noise: the vocabulary has pieces such as ``asdf``. A single letter, and an
    ideograph or emoji that is one piece, count as known.

    Args:
        caption: The text.
        encoding: Of the caption, possibly cut.
        unknown_token: Of the model, None if it has none.

    Returns:
        What is known; punctuation is not looked at.
    """
    known = 0
    spans: list[tuple[int, int]] = []
    for word in _words(encoding, unknown_token):
        if not any(map(_has_meaning, caption[word.start : word.end])):
            continue
        if not (word.has_unknown or _is_spelled(word)):
            known += 1
        elif spans and spans[-1][1] == word.start:
            spans[-1] = spans[-1][0], word.end
        else:
            spans.append((word.start, word.end))
    unknown = list(dict.fromkeys(caption[start:end] for start, end in spans))
    end = None
    if encoding.overflowing:
        end = max((end for _, end in encoding.offsets), default=0)
    return CaptionReading(known, unknown, end)


def _words(encoding: Encoding, unknown_token: str | None) -> Iterator[_Word]:
    """Yield the words of an encoding; what has no word is start, end or padding."""
    pieces: dict[int, list[tuple[int, int]]] = {}
    unknown = set()
    columns = (encoding.word_ids, encoding.offsets, encoding.tokens)
    for word, span, token in zip(*columns, strict=True):
        if word is None:
            continue
        pieces.setdefault(word, []).append(span)
        if token == unknown_token:
            unknown.add(word)
    for word, spans in pieces.items():
        yield _Word(spans[0][0], spans[-1][1], spans, word in unknown)


def _has_meaning(letter: str) -> bool:
    """Return whether a character is a letter, a digit or a symbol such as an emoji."""
    return letter.isalnum() or unicodedata.category(letter) in ('So', 'Sk')


def _is_spelled(word: _Word) -> bool:
    count, length = len(word.pieces), word.end - word.start
    if count < 2 or max(end - start for start, end in word.pieces) > _LONGEST_SPELLED:
        return False
    return length / count <= (1 if length <= _SHORT else _SPELLED)
