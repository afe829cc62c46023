"""What is said of a query before its results are trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gckd_mm.models.tokenizers.caption_reading import CaptionReading
from gckd_mm.search.apis.query_warnings import query_warnings


class _Reader:
    """Knows words of more than three letters; reads 60 characters."""

    def read_captions(self, captions: Sequence[str]) -> list[CaptionReading]:
        return [self.read(caption) for caption in captions]

    def read(self, caption: str) -> CaptionReading:
        words = caption.split()
        unknown = [word for word in words if len(word) <= 3]
        end = 60 if len(caption) > 60 else None
        return CaptionReading(len(words) - len(unknown), unknown, end)


READER: Any = _Reader()


@pytest.mark.parametrize(
    ('text', 'hint'),
    [
        ('woman without a hat', '--without "a hat"'),
        ('woman WITHOUT any hat', '--without "a hat"'),
        ('woman, no hat', '--without "a hat"'),
        ('No black hat with stripes', '--without "a black hat"'),
        ('woman not wearing a hat', '--without "a hat"'),
        ("woman who isn't carrying an umbrella", '--without "an umbrella"'),
        ('does not have glasses', '--without "glasses"'),
        ('woman w/o hat and gloves', '--without "a hat"'),
        ('woman, not a man', '--without "a man"'),
        ('woman lacking a coat', '--without "a coat"'),
    ],
)
def test_negation_hints_at_without(text: str, hint: str) -> None:
    (warning,) = (x for x in query_warnings(READER, text, '') if 'negation' in x)
    assert hint in warning


@pytest.mark.parametrize(
    'text',
    ['woman', 'notebook', 'noon knot', 'nothing else', 'number no. 5', 'without', 'no'],
)
def test_what_is_no_negation(text: str) -> None:
    assert not any('negation' in x for x in query_warnings(READER, text, ''))


def test_unknown_words_are_named() -> None:
    assert query_warnings(READER, 'woman coat', '') == []
    (some,) = query_warnings(READER, 'woman xyz abc', '')
    assert some.startswith("unknown to the model: 'xyz', 'abc'")
    (all_of_them,) = query_warnings(READER, 'xyz', '')
    assert "none of the words is known to the model ('xyz')" in all_of_them
    (without,) = query_warnings(READER, 'woman', 'xyz')
    assert without.startswith('without: none of the words')
    (many, _) = query_warnings(READER, ' '.join(f'{n}' for n in range(30)), '')
    assert many.count("'") == 20
    assert 'and 20 more' in many


def test_it_is_said_where_a_text_is_cut() -> None:
    (warning,) = query_warnings(READER, 'woman ' * 10 + 'coat', '')
    assert "nothing after '…oman woman woman" in warning


def test_wanted_and_unwanted() -> None:
    (warning,) = query_warnings(READER, 'Coat', ' coat ')
    assert 'both wanted and unwanted' in warning
    (warning,) = query_warnings(READER, 'woman', 'without coat')
    assert "without: names what is unwanted: 'coat', not 'without coat'" in warning
