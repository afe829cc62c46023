"""People and what they wear."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gckd_mm.synthpedes.random_stream import RandomStream

#: shade -> RGB of cloth in neutral light
SHADES: dict[str, tuple[int, int, int]] = {
    'black': (30, 30, 34),
    'dark grey': (74, 76, 82),
    'grey': (136, 138, 142),
    'white': (238, 238, 234),
    'red': (202, 36, 42),
    'dark red': (116, 24, 40),
    'pink': (240, 152, 184),
    'orange': (238, 126, 38),
    'yellow': (242, 210, 62),
    'beige': (216, 192, 152),
    'brown': (114, 72, 44),
    'green': (44, 146, 72),
    'olive': (92, 98, 48),
    'teal': (34, 150, 152),
    'light blue': (132, 184, 230),
    'blue': (42, 88, 194),
    'navy': (28, 40, 88),
    'purple': (120, 62, 154),
}
HAIR_SHADES: dict[str, tuple[int, int, int]] = {
    'black': (26, 22, 24),
    'brown': (84, 52, 32),
    'blond': (218, 182, 106),
    'ginger': (176, 84, 34),
    'grey': (168, 168, 172),
}

#: Weights = option -> how common it is; a domain multiplies them by factors of its own.
Weights = Mapping[str, float]

_CLOTH = {
    'black': 5, 'dark grey': 2.5, 'grey': 3, 'white': 4, 'red': 2.5, 'dark red': 1.2,
    'pink': 1.5, 'orange': 1.2, 'yellow': 1.5, 'beige': 1.5, 'brown': 1.5, 'green': 2,
    'olive': 1, 'teal': 1, 'light blue': 2, 'blue': 3, 'navy': 2, 'purple': 1.2,
}  # fmt: skip
_LEGWEAR = {
    'black': 5, 'dark grey': 2, 'grey': 2, 'white': 1.2, 'red': 0.6, 'pink': 0.4,
    'beige': 2, 'brown': 1.5, 'green': 0.5, 'olive': 1.2, 'light blue': 1.5, 'blue': 2,
    'navy': 2, 'purple': 0.4,
}  # fmt: skip
_DENIM = {'blue': 4, 'navy': 2.5, 'light blue': 3, 'black': 2, 'grey': 1}

#: attribute -> option -> weight. What stands after a dot is for men or women alone.
WARDROBE: dict[str, dict[str, float]] = {
    'gender': {'man': 1, 'woman': 1},
    'hair.man': {'short': 7, 'curly': 2, 'bald': 1.5, 'long': 0.7, 'ponytail': 0.3},
    'hair.woman': {'long': 5, 'ponytail': 3, 'bun': 2, 'short': 2, 'curly': 2},
    'hair colour': {'black': 5, 'brown': 4, 'blond': 2.5, 'ginger': 1, 'grey': 1.5},
    'beard.man': {'none': 7, 'beard': 3},
    'glasses': {'none': 7, 'glasses': 2, 'sunglasses': 1},
    'hat.man': {'none': 8, 'cap': 3, 'beanie': 1.5, 'sun hat': 0.5},
    'hat.woman': {'none': 9, 'cap': 1, 'beanie': 1.5, 'sun hat': 1.5},
    'upper.man': {
        't-shirt': 5, 'shirt': 3, 'sweater': 2.5, 'hoodie': 3, 'jacket': 4, 'coat': 2,
        'vest': 1.2, 'tank top': 0.8, 'suit jacket': 1.5,
    },
    'upper.woman': {
        't-shirt': 4, 'shirt': 2.5, 'sweater': 3, 'hoodie': 2, 'jacket': 3, 'coat': 3,
        'vest': 1, 'tank top': 1.5, 'suit jacket': 1, 'dress': 3.5,
    },
    'lower.man': {'jeans': 5, 'trousers': 5, 'shorts': 3},
    'lower.woman': {
        'jeans': 4, 'trousers': 3, 'shorts': 1.5, 'leggings': 2, 'skirt': 3,
        'long skirt': 1.5,
    },
    'pattern': {
        'plain': 12, 'striped': 2.2, 'checked': 1.6, 'dotted': 1, 'two-tone': 1.4,
        'logo': 1.8,
    },
    'lower pattern': {'plain': 12, 'striped': 0.8, 'checked': 1.2, 'dotted': 0.5},
    'shoes.man': {'sneakers': 6, 'boots': 2, 'leather shoes': 3, 'sandals': 1},
    'shoes.woman': {'sneakers': 5, 'boots': 2.5, 'sandals': 2, 'high heels': 2},
    'bag': {
        'none': 6, 'backpack': 3, 'handbag': 2, 'shoulder bag': 2, 'shopping bag': 1.2,
        'suitcase': 0.7,
    },
    'scarf': {'none': 9, 'scarf': 1},
    'held': {'none': 10, 'phone': 1.2, 'cup': 0.8, 'book': 0.7, 'umbrella': 0.8},
    'upper colour': _CLOTH,
    'second colour': _CLOTH,
    'lower colour': _LEGWEAR,
    'denim colour': _DENIM,
    'hat colour': _CLOTH,
    'shoes colour': {'black': 5, 'white': 4, 'brown': 2.5, 'grey': 1.5, 'red': 1.2,
                     'blue': 1, 'pink': 0.6, 'yellow': 0.5, 'green': 0.5},
    'bag colour': _CLOTH,
    'scarf colour': _CLOTH,
    'held colour': _CLOTH,
}  # fmt: skip

#: upper garments that are worn open or sleeveless over something of the second colour
LAYERED = ('jacket', 'coat', 'vest', 'suit jacket')


class Colour(NamedTuple):
    """A colour of cloth or hair, as it is in neutral light."""

    shade: str
    rgb: tuple[int, int, int]


class Garment(NamedTuple):
    """A thing that is worn or carried.

    ``second`` is the other colour of a pattern, or what shows under a layered garment.
    """

    kind: str
    colour: Colour
    pattern: str = 'plain'
    second: Colour | None = None


class Person(NamedTuple):
    """One identity: all that stays the same from image to image."""

    gender: str  # 'man', 'woman'
    build: float  # width, a share of the average: 0.8 (slim) … 1.22
    skin: tuple[int, int, int]  # RGB
    hair: Garment  # kind: short, long, ponytail, bun, curly, bald
    beard: bool
    glasses: str  # 'none', 'glasses', 'sunglasses'
    hat: Garment | None
    upper: Garment
    lower: Garment | None  # None under a dress
    shoes: Garment
    bag: Garment | None
    scarf: Garment | None
    held: Garment | None  # phone, cup, book, umbrella

    @property
    def hides_hair(self) -> bool:
        """Whether the hat covers all of the hair, or that there is none."""
        kinds = ('short', 'bun', 'bald')
        has_beanie = self.hat is not None and self.hat.kind == 'beanie'
        return has_beanie and self.hair.kind in kinds

    @property
    def look(self) -> tuple[str, ...]:
        """What can be said about the person in words: a kind and shades a thing."""
        hair = None if self.hides_hair else self.hair
        things = (
            hair, self.hat, self.upper, self.lower, self.shoes, self.bag, self.scarf,
            self.held,
        )  # fmt: skip
        words = [self.gender, 'beard' if self.beard else '', self.glasses]
        for thing in things:
            if thing is None:
                words.append('none')
                continue
            second = thing.second.shade if thing.second else ''
            words.append(f'{thing.kind},{thing.colour.shade},{thing.pattern},{second}')
        return tuple(words)

    @property
    def is_of_web(self) -> bool:
        """Whether the look belongs to ``web`` (an eighth do) and not to the worlds.

        The looks are divided by a hash, so that nobody whom a model was pretrained on
        walks through any world.
        """
        digest = hashlib.sha256('|'.join(self.look).encode()).digest()
        return digest[0] % 8 == 0


class Wardrobe:
    """The attribute frequencies of one place.

    Args:
        factors: attribute -> option -> factor on the weight in :data:`WARDROBE`.
    """

    def __init__(
        self, factors: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        factors = factors or {}
        self.weights = {
            attribute: {
                option: weight * factors.get(attribute, {}).get(option, 1.0)
                for option, weight in options.items()
            }
            for attribute, options in WARDROBE.items()
        }

    def sample_person(self, stream: RandomStream) -> Person:
        """Sample somebody."""
        gender = self._pick(stream, 'gender')
        hair = self._hair(stream, gender)
        upper = self._upper(stream, self._pick(stream, f'upper.{gender}'))
        tone = stream.uniform() * stream.uniform(0.4, 1.0)
        light, dark = (244, 208, 180), (92, 58, 40)
        return Person(
            gender=gender,
            build=stream.uniform(0.86, 1.22) - 0.06 * (gender == 'woman'),
            skin=_mix(light, dark, tone),
            hair=hair,
            beard=gender == 'man' and self._pick(stream, 'beard.man') == 'beard',
            glasses=self._pick(stream, 'glasses'),
            hat=self._garment(stream, f'hat.{gender}', 'hat colour'),
            upper=upper,
            lower=None if upper.kind == 'dress' else self._lower(stream, gender),
            shoes=self._shoes(stream, gender),
            bag=self._garment(stream, 'bag', 'bag colour'),
            scarf=self._garment(stream, 'scarf', 'scarf colour'),
            held=self._garment(stream, 'held', 'held colour'),
        )

    def resample_one_thing(self, person: Person, stream: RandomStream) -> Person:
        """Return somebody who differs from ``person`` in one thing that is worn."""
        thing = stream.choice(('hair', 'hat', 'upper', 'lower', 'shoes', 'bag'))
        gender = person.gender
        if thing == 'upper':
            return person._replace(upper=self._upper(stream, person.upper.kind))
        if thing == 'lower' and person.lower is not None:
            return person._replace(lower=self._lower(stream, gender))
        if thing == 'hair':
            return person._replace(hair=self._hair(stream, gender))
        if thing == 'hat':
            hat = self._garment(stream, f'hat.{gender}', 'hat colour')
            return person._replace(hat=hat)
        if thing == 'bag':
            return person._replace(bag=self._garment(stream, 'bag', 'bag colour'))
        return person._replace(shoes=self._shoes(stream, gender))

    def _pick(self, stream: RandomStream, attribute: str) -> str:
        return stream.weighted(self.weights[attribute])

    def _colour(self, stream: RandomStream, attribute: str) -> Colour:
        shades = HAIR_SHADES if attribute == 'hair colour' else SHADES
        shade = self._pick(stream, attribute)
        light = stream.uniform(0.9, 1.1)
        red, green, blue = (
            min(250, max(14, round(channel * light + stream.uniform(-7, 7))))
            for channel in shades[shade]
        )
        return Colour(shade, (red, green, blue))

    def _garment(
        self, stream: RandomStream, attribute: str, colour: str
    ) -> Garment | None:
        kind = self._pick(stream, attribute)
        return None if kind == 'none' else Garment(kind, self._colour(stream, colour))

    def _hair(self, stream: RandomStream, gender: str) -> Garment:
        hair = self._garment(stream, f'hair.{gender}', 'hair colour')
        assert hair is not None
        if hair.kind == 'bald':  # two bald people do not differ in a colour
            hair = Garment('bald', Colour('black', HAIR_SHADES['black']))
        return hair

    def _upper(self, stream: RandomStream, kind: str) -> Garment:
        colour = self._colour(stream, 'upper colour')
        pattern = 'plain'
        if kind != 'suit jacket':
            pattern = self._pick(stream, 'pattern')
        if kind in LAYERED:
            pattern = pattern if pattern in ('checked', 'two-tone') else 'plain'
        second = None
        if pattern != 'plain' or kind in LAYERED:
            second = self._other_colour(stream, colour)
        return Garment(kind, colour, pattern, second)

    def _lower(self, stream: RandomStream, gender: str) -> Garment:
        kind = self._pick(stream, f'lower.{gender}')
        if kind == 'jeans':
            return Garment(kind, self._colour(stream, 'denim colour'))
        colour = self._colour(stream, 'lower colour')
        pattern = self._pick(stream, 'lower pattern')
        second = None if pattern == 'plain' else self._other_colour(stream, colour)
        return Garment(kind, colour, pattern, second)

    def _shoes(self, stream: RandomStream, gender: str) -> Garment:
        shoes = self._garment(stream, f'shoes.{gender}', 'shoes colour')
        assert shoes is not None
        return shoes

    def _other_colour(self, stream: RandomStream, colour: Colour) -> Colour:
        while True:
            other = self._colour(stream, 'second colour')
            contrast = sum(
                abs(a - b) for a, b in zip(other.rgb, colour.rgb, strict=True)
            )
            if contrast > 150:
                return other


def sample_people(
    stream: RandomStream, wardrobe: Wardrobe, of_web: bool = False, twins: float = 0.25
) -> Iterator[Person]:
    """Yield people without end, no two of them with the same look.

    Args:
        stream: Its children give the people, one each.
        wardrobe: What is worn in this place.
        of_web: Whether to yield the people of ``web`` or those of the worlds.
        twins: Share of people who differ in one thing from one who came before.
            Defaults to 0.25.
    """
    seen: set[tuple[str, ...]] = set()
    people: list[Person] = []
    while True:
        dice = stream.child('person', len(people))
        is_twin = bool(people) and dice.chance(twins)
        model = dice.choice(people) if is_twin else None
        while True:
            person = (
                wardrobe.resample_one_thing(model, dice)
                if model
                else wardrobe.sample_person(dice)
            )
            if person.look not in seen and person.is_of_web == of_web:
                break
        seen.add(person.look)
        people.append(person)
        yield person


def _mix(
    first: tuple[int, int, int], second: tuple[int, int, int], share: float
) -> tuple[int, int, int]:
    red, green, blue = (
        round(a + (b - a) * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue
