"""Annotators, each with words and habits of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.vocabulary import COARSE, VOCABULARY

STYLES = ('flowing', 'sentences', 'telegraphic', 'web')

#: name -> the order in which an annotator tells what can be seen
ORDERS: dict[str, tuple[str, ...]] = {
    'top-down': (
        'hair', 'beard', 'glasses', 'hat', 'scarf', 'upper', 'lower', 'shoes', 'bag',
        'held',
    ),
    'bottom-up': (
        'shoes', 'lower', 'upper', 'scarf', 'hat', 'bag', 'held', 'glasses', 'beard',
        'hair',
    ),
    'clothes first': (
        'upper', 'lower', 'shoes', 'scarf', 'hat', 'hair', 'beard', 'glasses', 'bag',
        'held',
    ),
    'bag first': (
        'bag', 'held', 'hair', 'glasses', 'beard', 'upper', 'lower', 'shoes', 'hat',
        'scarf',
    ),
}  # fmt: skip

#: attribute -> default range of the probability that it is mentioned. A colour is
#: mentioned only along with its thing.
MENTIONS: dict[str, tuple[float, float]] = {
    'gender': (0.9, 1.0),
    'hair': (0.7, 1.0),
    'hair colour': (0.7, 1.0),
    'beard': (0.4, 0.9),
    'glasses': (0.5, 0.9),
    'hat': (0.85, 1.0),
    'hat colour': (0.7, 1.0),
    'upper': (0.97, 1.0),
    'upper colour': (0.95, 1.0),
    'pattern': (0.85, 1.0),
    'second': (0.7, 1.0),
    'lower': (0.95, 1.0),
    'lower colour': (0.9, 1.0),
    'shoes': (0.75, 1.0),
    'shoes colour': (0.8, 1.0),
    'bag': (0.85, 1.0),
    'bag colour': (0.8, 1.0),
    'scarf': (0.7, 1.0),
    'scarf colour': (0.5, 0.9),
    'held': (0.6, 0.95),
    'held colour': (0.4, 0.8),
}


class Annotator(NamedTuple):
    """Somebody who describes images in a manner of their own.

    Attributes:
        style: One of :data:`STYLES`.
        words: concept -> preferred synonym, for each concept of the vocabulary.
        loyalty: Probability that the preferred word is used. Any other synonym of the
            concept is used otherwise.
        mentions: attribute (a key of :data:`MENTIONS`) -> probability that it is
            mentioned when visible. One that is missing is never mentioned.
        coarse: Shades that the annotator calls by the name of their base shade.
        mistakes: Probability for each mentioned shade, kind and pattern that another
            one with which it is easily confused is named instead.
        order: The order in which things are told, as in :data:`ORDERS`.
    """

    style: str
    words: Mapping[str, str]
    loyalty: float
    mentions: Mapping[str, float]
    coarse: frozenset[str]
    mistakes: float
    order: tuple[str, ...]


class AnnotatorRange(NamedTuple):
    """Where the annotators of a domain are sampled from, as (low, high) pairs.

    Attributes:
        styles: Options for the style.
        orders: Options for the order, keys of :data:`ORDERS`.
        loyalty: Range of :attr:`Annotator.loyalty`.
        coarse: Range of the share of the shades in ``COARSE`` that are called by their
            base shade.
        mistakes: Range of :attr:`Annotator.mistakes`.
        mentions: attribute -> range of its probability. The others have the range in
            :data:`MENTIONS`.
        divergence: Range of the probability that the domains of a world prefer
            different synonyms of a concept.
    """

    styles: tuple[str, ...] = ('flowing', 'sentences', 'telegraphic')
    orders: tuple[str, ...] = tuple(ORDERS)
    loyalty: tuple[float, float] = (0.7, 0.95)
    coarse: tuple[float, float] = (0.0, 0.5)
    mistakes: tuple[float, float] = (0.01, 0.06)
    mentions: Mapping[str, tuple[float, float]] = {}
    divergence: tuple[float, float] = (0.6, 0.9)


#: Annotators of alt-text: few attributes, more mistakes.
WEB_RANGE = AnnotatorRange(
    loyalty=(1.0, 1.0),
    coarse=(0.0, 0.3),
    mistakes=(0.03, 0.1),
    mentions={
        'gender': (0.6, 1.0),
        'hair': (0.2, 0.6),
        'beard': (0.2, 0.6),
        'glasses': (0.2, 0.6),
        'hat': (0.4, 0.9),
        'upper': (0.85, 1.0),
        'upper colour': (0.85, 1.0),
        'pattern': (0.4, 0.9),
        'second': (0.3, 0.8),
        'lower': (0.5, 0.9),
        'lower colour': (0.7, 1.0),
        'shoes': (0.2, 0.6),
        'shoes colour': (0.4, 0.9),
        'bag': (0.4, 0.9),
        'bag colour': (0.4, 0.95),
        'scarf': (0.4, 0.8),
        'held': (0.3, 0.7),
    },
)


def sample_annotators(
    ranges: Mapping[str, AnnotatorRange], stream: RandomStream
) -> dict[str, Annotator]:
    """Sample the annotators of all domains of a world.

    The synonyms of each concept are shuffled once for the world, so that another world
    has other words. Domain number i prefers the i-th synonym of a concept on which the
    domains diverge, the first one of another. Number 0 thus always prefers the first.

    Args:
        ranges: domain -> what its annotator is sampled from.
        stream: The world's stream. Only its children are used.

    Returns:
        domain -> its annotator.

    Raises:
        InputError: If a range names an unknown style, order or attribute.
    """
    share = stream.child('divergence').uniform()
    words: dict[str, dict[str, str]] = {domain: {} for domain in ranges}
    for concept, synonyms in VOCABULARY.items():
        dice = stream.child('words', concept)
        order, mark = dice.shuffled(synonyms), dice.uniform()
        for number, (domain, limits) in enumerate(ranges.items()):
            low, high = limits.divergence
            diverges = mark < low + (high - low) * share
            words[domain][concept] = order[number % len(order) if diverges else 0]
    return {
        domain: _sample_habits(limits, words[domain], stream.child('habits', domain))
        for domain, limits in ranges.items()
    }


def sample_web_annotator(ranges: AnnotatorRange, stream: RandomStream) -> Annotator:
    """Sample an annotator of the web, who writes a single caption with any words.

    Args:
        ranges: What the habits are sampled from; the styles are those of the quarter
            who do not write alt-text ('web').
        stream: A stream for this annotator alone.

    Returns:
        An annotator of loyalty 1: within a caption words stay the same.
    """
    words = {
        concept: stream.choice(synonyms) for concept, synonyms in VOCABULARY.items()
    }
    annotator = _sample_habits(ranges, words, stream)
    style = 'web' if stream.chance(0.75) else annotator.style
    return annotator._replace(style=style, loyalty=1.0)


def _sample_habits(
    ranges: AnnotatorRange, words: Mapping[str, str], stream: RandomStream
) -> Annotator:
    for what, given, known in (
        ('style', ranges.styles, STYLES),
        ('order', ranges.orders, tuple(ORDERS)),
        ('attribute', tuple(ranges.mentions), tuple(MENTIONS)),
    ):
        for name in given:
            if name not in known:
                raise InputError(f'unknown {what} {name!r}; choose from {known}')
    limits = {**MENTIONS, **ranges.mentions}
    share = stream.uniform(*ranges.coarse)
    return Annotator(
        style=stream.choice(ranges.styles),
        words=words,
        loyalty=stream.uniform(*ranges.loyalty),
        mentions={name: stream.uniform(*pair) for name, pair in limits.items()},
        coarse=frozenset(shade for shade in COARSE if stream.chance(share)),
        mistakes=stream.uniform(*ranges.mistakes),
        order=ORDERS[stream.choice(ranges.orders)],
    )
