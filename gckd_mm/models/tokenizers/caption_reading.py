"""Which words of a caption a vocabulary knows, and where the caption is cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from tokenizers import Encoding

#: letters a piece, on average, of a word that is spelled rather than known
_SPELLED = 1.5
_LONGEST_SPELLED = 2
#: words up to this length are spelled only if each piece is one letter
_SHORT = 3
#: Letters, each with those that follow it in English words (in at least one of 2,000
#: that are frequent in texts, or in a word of clothing or the street). Keyboard noise
#: has other pairs.
_FOLLOWERS = {
    'a': 'bcdfgiklmnprstuvwxyz',
    'b': 'acegijlmorstuy',
    'c': 'acdehiklorstuy',
    'd': 'abcdegijlmoprstuvwy',
    'e': 'abcdefghijlmnopqrstuvwxyz',
    'f': 'acefilorstuy',
    'g': 'aeghilmnorstuy',
    'h': 'abeijlmorstuy',
    'i': 'abcdefgjklmnopqrstuvxz',
    'j': 'aeiou',
    'k': 'aehilnpsuw',
    'l': 'abcdefgiklmopstuvwy',
    'm': 'abeilmnopsuy',
    'n': 'abcdefghijklmnopstuvy',
    'o': 'abcdefgijklmnoprstuvwxy',
    'p': 'adehiloprstuxy',
    'q': 'u',
    'r': 'abcdefghiklmnopqrstuvwy',
    's': 'acefhiklmnopqrstuwy',
    't': 'abcdefhilmoprstuwy',
    'u': 'abcdefgilmnopqrsty',
    'v': 'aeioy',
    'w': 'adehilnors',
    'x': 'aceimpt',
    'y': 'aceghijlmnoprstw',
    'z': 'aeio',
}


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
    spelled and is no English word: it falls apart into two or more pieces, none of more
    than two letters and on average of at most 1.5 (one letter each in words of up to
    three), and two letters follow each other in it that do not in English. That rule is
    ours. With the vocabulary of the packaged models it names nine tenths of random
    letters and keyboard noise, and hardly an ordinary word of a description, also of
    those that these models have never seen (``helmet``).

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
        is_noise = _is_spelled(word) and _is_unusual(caption[word.start : word.end])
        if not (word.has_unknown or is_noise):
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


def _is_unusual(text: str) -> bool:
    """Return whether letters follow each other that do not so in English words.

    So is whatever has other letters than English.
    """
    letters = text.lower()
    if len(letters) == 1:
        return letters not in _FOLLOWERS
    return any(
        after not in _FOLLOWERS.get(letter, '') for letter, after in pairwise(letters)
    )
