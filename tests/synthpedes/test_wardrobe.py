"""People: unique looks, some of them nearly alike, nobody of the web in a world."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.wardrobe import (
    HAIR_SHADES,
    LAYERED,
    SHADES,
    WARDROBE,
    Colour,
    Garment,
    Person,
    Wardrobe,
    sample_people,
)


def people(count: int, **kwargs: object) -> list[Person]:
    stream = RandomStream('test', 'people')
    return list(itertools.islice(sample_people(stream, Wardrobe(), **kwargs), count))


def differences(first: Person, second: Person) -> int:
    return sum(a != b for a, b in zip(first.look, second.look, strict=True))


def test_no_two_people_look_the_same() -> None:
    looks = [person.look for person in people(800)]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize(
    ('hat', 'is_hidden'), [('beanie', True), ('cap', False), (None, False)]
)
def test_hair_that_a_hat_hides_is_no_part_of_the_look(
    hat: str | None, is_hidden: bool
) -> None:
    first = people(1)[0]._replace(
        hair=Garment('short', Colour('brown', HAIR_SHADES['brown'])),
        hat=hat and Garment(hat, Colour('red', SHADES['red'])),
    )
    for kind, shade in (('short', 'blond'), ('bun', 'brown'), ('bald', 'black')):
        hair = Garment(kind, Colour(shade, HAIR_SHADES[shade]))
        assert (first._replace(hair=hair).look == first.look) == is_hidden
    for kind in ('long', 'ponytail', 'curly'):
        hair = Garment(kind, first.hair.colour)
        assert first._replace(hair=hair).look != first.look
    assert first._replace(glasses='sunglasses').look != first.look


def test_twins_differ_in_one_thing() -> None:
    def share(twins: float) -> float:
        crowd = people(400, twins=twins)
        nearest = [
            min(differences(person, other) for other in crowd[:index])
            for index, person in enumerate(crowd)
            if index
        ]
        return float(np.mean([count == 1 for count in nearest]))

    assert share(0.3) == pytest.approx(0.3, abs=0.07)
    assert share(0.0) < 0.03


def test_the_web_and_the_worlds_share_nobody() -> None:
    web, world = people(300, of_web=True), people(2000)
    assert not {person.look for person in web} & {person.look for person in world}
    assert all(person.is_of_web for person in web)
    assert not any(person.is_of_web for person in world)


def test_every_option_is_worn() -> None:
    crowd = people(3000)
    things = ('hair', 'hat', 'upper', 'lower', 'shoes', 'bag', 'scarf', 'held')
    worn: dict[str, Counter[str]] = {
        thing: Counter(
            garment.kind for person in crowd if (garment := getattr(person, thing))
        )
        for thing in things
    }
    for thing, kinds in worn.items():
        expected = {
            option
            for attribute, options in WARDROBE.items()
            if attribute.split('.')[0] == thing
            for option in options
        }
        assert set(kinds) == expected - {'none'}
    assert {person.upper.colour.shade for person in crowd} == set(SHADES)
    assert {person.hair.colour.shade for person in crowd} == set(HAIR_SHADES)


def test_clothes_are_whole() -> None:
    for person in people(1500, twins=0.5):
        upper = person.upper
        assert (person.lower is None) == (upper.kind == 'dress')
        assert (upper.second is not None) == (
            upper.pattern != 'plain' or upper.kind in LAYERED
        )
        if upper.kind in LAYERED:
            assert upper.pattern in ('plain', 'checked', 'two-tone')
        if upper.second is not None:
            pairs = zip(upper.second.rgb, upper.colour.rgb, strict=True)
            assert sum(abs(a - b) for a, b in pairs) > 150
        for channel in (*person.skin, *upper.colour.rgb):
            assert 0 <= channel <= 255


def test_taste_multiplies_weights() -> None:
    def share(wardrobe: Wardrobe) -> float:
        stream = RandomStream('taste')
        crowd = itertools.islice(sample_people(stream, wardrobe, twins=0), 1500)
        return float(np.mean([person.bag is None for person in crowd]))

    weights = WARDROBE['bag']
    rest = sum(weights.values()) - weights['none']
    plain, tripled = (
        f * weights['none'] / (f * weights['none'] + rest) for f in (1, 3)
    )
    assert share(Wardrobe()) == pytest.approx(plain, abs=0.04)
    assert share(Wardrobe({'bag': {'none': 3}})) == pytest.approx(tripled, abs=0.04)
