"""Captions: what an annotator writes about somebody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.annotator import STYLES, Annotator
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.speaker import Speaker, Thing, tell_things
from gckd_mm.synthpedes.vocabulary import UNCOUNTABLE, indefinite
from gckd_mm.synthpedes.wardrobe import Person

#: what can be visible in an image
VISIBLE = frozenset(
    {'hair', 'beard', 'glasses', 'hat', 'upper', 'second', 'lower', 'shoes', 'bag',
     'scarf', 'held'}
)  # fmt: skip

#: gender -> pronoun and possessive
_PRONOUNS = {
    'man': ('he', 'his'),
    'woman': ('she', 'her'),
    'person': ('they', 'their'),
}
_SHOWN = ('this is', 'there is', 'the picture shows')


def describe(
    person: Person,
    visible: frozenset[str],
    annotator: Annotator,
    stream: RandomStream,
) -> str:
    """Write one caption.

    Args:
        person: Who is in the image.
        visible: What can be seen of the person, out of :data:`VISIBLE`. 'second' is
            what shows under an open jacket, a logo or the other colour of a pattern.
        annotator: Who writes.
        stream: The caption's stream. Two captions of an image come from two streams.

    Returns:
        The caption. Whoever is told nothing else about is told the gender.

    Raises:
        InputError: If ``visible`` or the style is unknown.
    """
    if not visible <= VISIBLE:
        raise InputError(
            f'cannot be visible: {sorted(visible - VISIBLE)}; choose from '
            f'{sorted(VISIBLE)}'
        )
    if annotator.style not in _WRITERS:
        raise InputError(f'unknown style {annotator.style!r}; choose from {STYLES}')
    speaker = Speaker(annotator, stream)
    things = tell_things(person, visible, speaker)
    adjective = ' '.join(thing.noun for thing in things if thing.role == 'subject')
    things = [thing for thing in things if thing.role != 'subject']
    is_told = speaker.mentions('gender') or not (things or adjective)
    gender = person.gender if is_told else 'person'
    noun = speaker.word(f'gender.{gender}')
    subject = _Subject(
        f'{adjective} {noun}' if adjective else noun,
        noun,
        adjective,
        is_told,
        *_PRONOUNS[gender],
    )
    return _WRITERS[annotator.style](subject, things, speaker)


class _Subject(NamedTuple):
    """The person as the subject of a sentence."""

    noun: str  # 'woman', 'bald man'
    name: str  # 'woman', 'man'
    adjective: str  # 'bald' or nothing
    is_told: bool  # whether the gender is told
    pronoun: str
    possessive: str


def _flowing(subject: _Subject, things: Sequence[Thing], speaker: Speaker) -> str:
    """Write one long sentence."""
    someone = indefinite(subject.noun)
    clauses = _clauses(things, speaker)
    if not clauses:
        return _opened(f'{speaker.choice(_SHOWN)} {someone}')
    *before, last = clauses
    opening = speaker.choice((someone, someone, f'the {subject.noun}'))
    if not before:
        if speaker.chance(0.3):
            return _opened(f'there is {someone} {last.modifier}')
        return _opened(f'{opening} {last.verb}')
    first, middle = before[0], before[1:]
    final = last.plural_verb if subject.pronoun == 'they' else last.verb
    frame = speaker.integer(0, 4)
    if frame == 0:  # A woman with long hair is wearing a coat, and she has a bag.
        told = f'{first.modifier} {middle[0].verb}' if middle else first.verb
        return _opened(f'{opening} {told}, and {subject.pronoun} {final}')
    if frame == 1:  # A woman with long hair, wearing a coat, has a bag.
        comma = ',' if middle else ''
        return _opened(f'{opening} {_modifiers(before)}{comma} {last.verb}')
    if frame == 2:  # The woman has long hair, is wearing a coat, and has a bag.
        verbs = ', '.join(clause.verb for clause in before)
        comma = ',' if middle or ' and ' in first.verb else ''
        return _opened(f'{opening} {verbs}{comma} and {last.verb}')
    if frame == 3 and first.role != 'looks':  # Wearing a coat, a woman has a bag.
        between = ''.join(f' {clause.modifier}' for clause in middle)
        return _opened(f'{first.modifier}, {someone}{between} {last.verb}')
    # This is a woman with long hair, wearing a coat, with a bag.
    return _opened(f'{speaker.choice(_SHOWN)} {someone} {_modifiers(clauses)}')


def _sentences(subject: _Subject, things: Sequence[Thing], speaker: Speaker) -> str:
    """Write several short sentences."""
    if not things:
        opening = speaker.choice(('this is', 'there is', 'it is'))
        return _opened(f'{opening} {indefinite(subject.noun)}')
    sentences: list[str] = []
    if subject.adjective and speaker.chance(0.5):
        sentences.append(_opened(f'the {subject.name} is {subject.adjective}'))
    elif speaker.chance(0.2):
        opening = speaker.choice(('this is', 'there is'))
        sentences.append(_opened(f'{opening} {indefinite(subject.noun)}'))
    rest = list(things)
    while rest:
        size = 1
        while size < min(3, len(rest)) and rest[size].role == rest[0].role:
            if not speaker.chance(0.4):
                break
            size += 1
        group, rest = rest[:size], rest[size:]
        named = None
        if not sentences or speaker.chance(0.12):
            named = f'the {subject.name if sentences else subject.noun}'
        sentences.append(_opened(_sentence(subject, named, group, speaker)))
    return ' '.join(sentences)


def _sentence(
    subject: _Subject,
    named: str | None,
    things: Sequence[Thing],
    speaker: Speaker,
) -> str:
    """Write a sentence about the person, by name or, for None, by pronoun."""
    thing = things[0]
    can_turn = (
        len(things) == 1
        and thing.adjectives
        and ' and ' not in ''.join(thing.adjectives)
    )
    if can_turn and speaker.chance(0.45):  # Her coat is red.
        owner = f"{named}'s" if named else subject.possessive
        verb = 'are' if thing.is_plural else 'is'
        if thing.link == 'in':  # Her brown hair is in a bun.
            return f'{owner} {thing.adjectives[0]} {thing.noun} is{thing.tail}'
        worn = ' and worn' if thing.object and thing.link != 'with' else ''
        adjectives = ' and '.join(thing.adjectives)
        return f'{owner} {thing.noun} {verb} {adjectives}{worn}{thing.tail}'
    clause = _clause(thing.role, things, speaker)
    if named:
        return f'{named} {clause.verb}'
    is_plural = subject.pronoun == 'they'
    return f'{subject.pronoun} {clause.plural_verb if is_plural else clause.verb}'


def _telegraphic(subject: _Subject, things: Sequence[Thing], speaker: Speaker) -> str:
    """Write a list of attributes."""
    groups: dict[str, list[str]] = {}
    is_turned = speaker.chance(0.25)
    for thing in things:
        words = thing.bare
        if is_turned and thing.adjectives and not thing.object:
            words = f'{thing.noun} ({" ".join(thing.adjectives)})'
        groups.setdefault(thing.role, []).append(words)
    outer = speaker.choice(('; ', '; ', ', ', ' / '))
    lists = [', '.join(group) for group in groups.values()]
    named = _label(subject, things)
    if named and lists:
        mark = speaker.choice((', ', ': ', outer))
        return f'{named}{mark}{outer.join(lists)}'
    return named or outer.join(lists)


def _web(subject: _Subject, things: Sequence[Thing], speaker: Speaker) -> str:
    """Write an alt-text."""
    named = _label(subject, things)
    manner = ''
    if speaker.chance(0.35):
        manner = speaker.choice(('stylish', 'casual', 'fashionable', 'trendy', 'cool'))
    place = ''
    if speaker.chance(0.4):
        place = speaker.choice(
            ('street', 'outfit', 'street style', 'look', 'fashion', 'photo', 'city')
        )
    frame = speaker.integer(0, 3)
    if frame >= 2 or not things:  # guy in a navy hoodie and jeans
        clauses = _clauses(things, speaker)
        words = [manner, subject.noun, *(clause.modifier for clause in clauses)]
        text = ' '.join(word for word in words if word)
        if frame == 2:
            shown = speaker.choice(('photo of', 'picture of', 'image of'))
            return f'{shown} {indefinite(text)}'
        return f'{text} {place}'.strip()
    bare = [thing.bare for thing in things]
    if frame == 0:  # stylish lady red jacket street
        return ' '.join(word for word in (manner, named, *bare, place) if word)
    ending = ' '.join(word for word in (manner, named, place) if word)
    return f'{", ".join(bare)} - {ending}' if ending else ', '.join(bare)


def _label(subject: _Subject, things: Sequence[Thing]) -> str:
    """Return what a list calls the person; it may do without a noun."""
    return subject.noun if subject.is_told or not things else subject.adjective


class _Clause(NamedTuple):
    """What is said of the person by one verb."""

    role: str
    modifier: str  # 'wearing a coat'
    verb: str  # 'is wearing a coat'
    plural_verb: str  # '(they) are wearing a coat'


def _clauses(things: Sequence[Thing], speaker: Speaker) -> list[_Clause]:
    groups: dict[str, list[Thing]] = {}
    for thing in things:
        groups.setdefault(thing.role, []).append(thing)
    return [_clause(role, group, speaker) for role, group in groups.items()]


def _clause(role: str, things: Sequence[Thing], speaker: Speaker) -> _Clause:
    what = _listed([_phrase(thing, speaker) for thing in things])
    if role == 'looks':
        word = 'with'
    elif role == 'clothes':
        word = speaker.word('wear')
        # nobody is dressed in a cap alone
        is_dress = any(thing.part in ('upper', 'lower') for thing in things)
        word = word if is_dress or word == 'in' else 'wearing'
    else:
        has_bag = any(thing.part == 'bag' for thing in things)
        word = speaker.word('carry' if has_bag else 'hold')
    verb, plural = ('has', 'have') if word == 'with' else (f'is {word}', f'are {word}')
    return _Clause(role, f'{word} {what}', f'{verb} {what}', f'{plural} {what}')


def _phrase(thing: Thing, speaker: Speaker) -> str:
    """Return a thing with its article, such as 'a red coat over a white top'."""
    words = ' '.join((*thing.adjectives, thing.noun))
    if thing.is_plural:
        is_pair = thing.part != 'glasses' and speaker.chance(0.15)
        return f'{"a pair of " if is_pair else ""}{words}{thing.tail}'
    if thing.noun not in UNCOUNTABLE:
        words = indefinite(words)
    return f'{words}{thing.tail}'


def _listed(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f'{", ".join(phrases[:-1])} and {phrases[-1]}'


def _modifiers(clauses: Sequence[_Clause]) -> str:
    """Join what modifies a noun: 'with a bag and short hair, in a coat'."""
    text = ''
    last = ''
    for clause in clauses:
        word, _, what = clause.modifier.partition(' ')
        if word == last == 'with':
            text += f' and {what}'
        else:
            text += f', {clause.modifier}' if text else clause.modifier
        last = word
    return text


def _opened(sentence: str) -> str:
    return f'{sentence[0].upper()}{sentence[1:]}.'


_WRITERS = {
    'flowing': _flowing,
    'sentences': _sentences,
    'telegraphic': _telegraphic,
    'web': _web,
}
