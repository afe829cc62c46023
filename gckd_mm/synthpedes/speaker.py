"""The words that an annotator finds for each thing about a person."""

from __future__ import annotations

from typing import NamedTuple

from gckd_mm.synthpedes.annotator import Annotator
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.vocabulary import (
    COARSE,
    CONFUSED,
    PLURAL,
    VOCABULARY,
    indefinite,
)
from gckd_mm.synthpedes.wardrobe import LAYERED, Colour, Garment, Person

_ROLES = {
    'hair': 'looks', 'beard': 'looks', 'glasses': 'looks', 'hat': 'clothes',
    'scarf': 'clothes', 'upper': 'clothes', 'lower': 'clothes', 'shoes': 'clothes',
    'bag': 'carried', 'held': 'carried',
}  # fmt: skip


def tell_things(
    person: Person, visible: frozenset[str], speaker: Speaker
) -> list[Thing]:
    """Choose what to mention of what can be seen, and the words for it.

    Args:
        person: Who is described.
        visible: What can be seen of the person, 'second' included.
        speaker: Who describes.

    Returns:
        The things, in the annotator's order.
    """
    return [
        _thing(person, part, visible, speaker)
        for part in speaker.annotator.order
        if part in visible and _has(person, part) and speaker.mentions(part)
    ]


class Thing(NamedTuple):
    """Something about the person, in words."""

    part: str  # as in an order
    role: str  # 'looks', 'clothes', 'carried', or 'subject' for an adjective to it
    noun: str
    adjectives: tuple[str, ...] = ()
    link: str = ''  # 'over' (a white top), 'with' (a logo)
    object: str = ''  # 'white top'
    is_plural: bool = False

    @property
    def bare(self) -> str:
        """The thing without articles."""
        words = [*self.adjectives, self.noun]
        if self.object:
            words += [self.link, self.object]
        return ' '.join(words)

    @property
    def tail(self) -> str:
        """What follows the noun in a sentence."""
        return f' {self.link} {indefinite(self.object)}' if self.object else ''


class Speaker:
    """The choices that an annotator makes in a caption.

    Args:
        annotator: Whose words and habits they are.
        stream: The caption's stream, from which every choice is sampled in turn.
    """

    def __init__(self, annotator: Annotator, stream: RandomStream) -> None:
        self.annotator = annotator
        self.stream = stream
        self.chance = stream.chance
        self.choice = stream.choice
        self.integer = stream.integer

    def mentions(self, attribute: str) -> bool:
        """Decide whether to mention an attribute."""
        return self.chance(self.annotator.mentions.get(attribute, 0.0))

    def word(self, concept: str) -> str:
        """Return the preferred word for a concept, or another one."""
        preferred = self.annotator.words[concept]
        if self.chance(self.annotator.loyalty):
            return preferred
        others = [word for word in VOCABULARY[concept] if word != preferred]
        return self.choice(others) if others else preferred

    def seen(self, family: str, option: str) -> str:
        """Return an option or, by mistake, one that looks like it."""
        confused = CONFUSED.get(f'{family}.{option}')
        if confused and self.chance(self.annotator.mistakes):
            return self.choice(confused)
        return option

    def shade(self, colour: Colour, family: str = 'shade') -> str:
        """Return a word for a shade, of cloth or ('hair shade') of hair."""
        shade = self.seen(family, colour.shade)
        if family == 'shade' and shade in self.annotator.coarse:
            return COARSE[shade]
        return self.word(f'{family}.{shade}')


def _has(person: Person, part: str) -> bool:
    if part == 'glasses':
        return person.glasses != 'none'
    return bool(getattr(person, part))


def _thing(
    person: Person, part: str, visible: frozenset[str], speaker: Speaker
) -> Thing:
    role = _ROLES[part]
    if part == 'beard':
        return Thing(part, role, speaker.word('beard'))
    if part == 'glasses':
        return Thing(part, role, speaker.word(person.glasses), is_plural=True)
    garment: Garment = getattr(person, part)
    if part == 'hair':
        return _hair(garment, speaker)
    if part == 'scarf':
        noun, is_plural = speaker.word('scarf'), False
    else:
        concept = f'{part}.{speaker.seen(part, garment.kind)}'
        noun, is_plural = speaker.word(concept), concept in PLURAL
    shade = ''
    if speaker.mentions(f'{part} colour'):
        shade = speaker.shade(garment.colour)
    adjectives, link, thing = _pattern(part, garment, shade, visible, speaker)
    return Thing(part, role, noun, adjectives, link, thing, is_plural)


def _hair(hair: Garment, speaker: Speaker) -> Thing:
    kind = speaker.seen('hair', hair.kind)
    word = speaker.word(f'hair.{kind}')
    if kind == 'bald':
        return Thing('hair', 'subject', word)
    shade: tuple[str, ...] = ()
    # the hair colour of bald people is a placeholder
    if hair.kind != 'bald' and speaker.mentions('hair colour'):
        shade = (speaker.shade(hair.colour, 'hair shade'),)
    if kind not in ('ponytail', 'bun'):
        return Thing('hair', 'looks', 'hair', (word, *shade))
    if shade and speaker.chance(0.5):
        return Thing('hair', 'looks', 'hair', shade, 'in', word)
    return Thing('hair', 'looks', word, shade)


def _pattern(
    part: str, garment: Garment, shade: str, visible: frozenset[str], speaker: Speaker
) -> tuple[tuple[str, ...], str, str]:
    """Return the adjectives, a link and what is linked, such as 'over', 'white top'."""
    adjectives = (shade,) if shade else ()
    if garment.second is None:
        return adjectives, '', ''
    pattern = garment.pattern
    shows = part != 'upper' or 'second' in visible
    if pattern == 'plain':
        if garment.kind in LAYERED and shows and speaker.mentions('second'):
            inner = f'{speaker.shade(garment.second)} {speaker.word("inner")}'
            return adjectives, speaker.word('over'), inner
        return adjectives, '', ''
    if (pattern == 'logo' and not shows) or not speaker.mentions('pattern'):
        return adjectives, '', ''
    if pattern == 'logo':
        logo = speaker.word('pattern.logo')
        if speaker.mentions('second'):
            logo = f'{speaker.shade(garment.second)} {logo}'
        return adjectives, 'with', logo
    word = speaker.word(f'pattern.{speaker.seen("pattern", pattern)}')
    # half of the colour of something in two tones would mislead
    if shade and (pattern == 'two-tone' or (shows and speaker.mentions('second'))):
        other = speaker.shade(garment.second)
        shade = f'{shade} and {other}' if other != shade else shade
    return (shade, word) if shade else (word,), '', ''
