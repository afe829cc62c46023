"""What a user should know about a query before trusting its results."""

from __future__ import annotations

import re

from gckd_mm.models.tokenizers.caption_reading import CaptionReading
from gckd_mm.search.apis.encoder import Encoder

_MAX_WORDS = 10
_MAX_LETTERS = 40
#: what says that something is not there, and then its name
_NEGATION = re.compile(
    r"""\b(?:
        without | w/o | lacking | minus | except(?:\ for)? | excluding
        | (?:not|never|\w+n['’]t)\ (?:to\ )?
          (?:wear|wearing|carry|carrying|hold|holding|have|having|with|in)
        | no | not(?=\ an?\b)
    )\s+
    (?:(?:any|an?|the|his|her|their)\s+)?
    (?P<thing>[^\W\d_][\w'’-]*
       (?:\s+(?!(?:and|but|or|nor|with|who|in|on|is|while|wearing|carrying)\b)
          [^\W\d_][\w'’-]*){0,3})""",
    re.IGNORECASE | re.VERBOSE,
)


def query_warnings(encoder: Encoder, text: str, without: str) -> list[str]:
    """Return what a user should know about a query, as sentences."""
    warnings = []
    if text.strip():
        warnings += _about_words(text, encoder.read_captions([text])[0])
        warnings += _about_negation(text)
    if without.strip():
        about = _about_words(without, encoder.read_captions([without])[0])
        warnings += [f'without: {sentence}' for sentence in about]
        if found := _NEGATION.search(without):
            warnings.append(
                f'without: names what is unwanted: {_quoted(found["thing"])}, not '
                f'{_quoted(without.strip())}'
            )
        if without.strip().casefold() == text.strip().casefold():
            warnings.append(
                f'{_quoted(text.strip())} is both wanted and unwanted (without)'
            )
    return warnings


def _about_words(text: str, reading: CaptionReading) -> list[str]:
    warnings = []
    named = ', '.join(map(_quoted, reading.unknown[:_MAX_WORDS]))
    if len(reading.unknown) > _MAX_WORDS:
        named += f' and {len(reading.unknown) - _MAX_WORDS} more'
    if not reading.known:
        words = named or _quoted(text.strip())
        warnings.append(
            f'none of the words is known to the model ({words}): the results mean '
            f'nothing'
        )
    elif named:
        warnings.append(
            f'unknown to the model: {named}: the results may not follow these words'
        )
    if reading.end is not None and text[reading.end :].strip():
        warnings.append(
            f'too long for the model: nothing after '
            f'{_quoted(text[: reading.end].strip(), tail=True)} is read'
        )
    return warnings


def _about_negation(text: str) -> list[str]:
    things = [found['thing'] for found in _NEGATION.finditer(text)]
    things = list(dict.fromkeys(thing for thing in things if thing))
    if not things:
        return []
    named = ' and '.join(map(_quoted, things[:_MAX_WORDS]))
    return [
        f'models of this kind read past negation: leave {named} out of the description '
        f'and search without it (shell: --without {_shell(things[0])}; elsewhere the '
        f'field "without")'
    ]


def _quoted(text: str, tail: bool = False) -> str:
    if len(text) > _MAX_LETTERS:
        text = f'…{text[-_MAX_LETTERS:]}' if tail else f'{text[:_MAX_LETTERS]}…'
    return repr(text)


def _shell(thing: str) -> str:
    article = '' if thing.endswith('s') else 'an ' if thing[0] in 'aeiouAEIOU' else 'a '
    return f'"{article}{thing}"'
