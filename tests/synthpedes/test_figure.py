import itertools
import math

import numpy as np
import pytest

from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.figure import (
    figure_height,
    render_figure,
    visible_things,
)
from gckd_mm.synthpedes.pose import Pose, View, sample_pose
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.wardrobe import (
    LAYERED,
    Colour,
    Garment,
    Person,
    Wardrobe,
    sample_people,
)

VIEW = View((40, 150), 76.0, 0.1)
FRONT, BACK = Pose(0.0), Pose(math.pi)
RED = Colour('red', (202, 36, 42))
BLUE = Colour('blue', (42, 88, 194))
WHITE = Colour('white', (238, 238, 234))
GREEN = Colour('green', (44, 146, 72))
PERSON = Person(
    gender='woman',
    build=1.0,
    skin=(236, 196, 166),
    hair=Garment('short', Colour('brown', (84, 52, 32))),
    beard=False,
    glasses='none',
    hat=None,
    upper=Garment('t-shirt', RED),
    lower=Garment('trousers', BLUE),
    shoes=Garment('sneakers', WHITE),
    bag=None,
    scarf=None,
    held=None,
)


def image(person: Person, pose: Pose, view: View = VIEW) -> np.ndarray:
    canvas = Canvas(180, 80, (205.0, 208.0, 210.0))
    render_figure(canvas, person, pose, view)
    return canvas.pixels


def changed(first: np.ndarray, second: np.ndarray) -> int:
    """Count the pixels that differ so that one can see it."""
    return int((np.abs(first - second).max(axis=2) > 12).sum())


UPPERS = [
    't-shirt', 'shirt', 'sweater', 'hoodie', 'jacket', 'coat', 'vest', 'tank top',
    'suit jacket', 'dress',
]  # fmt: skip
KINDS = {
    'upper': [Garment(k, RED, 'plain', WHITE if k in LAYERED else None) for k in UPPERS]
    + [
        Garment('t-shirt', RED, pattern, WHITE)
        for pattern in ('striped', 'checked', 'dotted', 'two-tone', 'logo')
    ],
    'lower': [
        Garment(k, BLUE)
        for k in ('jeans', 'trousers', 'shorts', 'skirt', 'long skirt', 'leggings')
    ]
    + [Garment('trousers', BLUE, p, WHITE) for p in ('striped', 'checked', 'dotted')],
    'shoes': [
        Garment(k, GREEN)
        for k in ('sneakers', 'boots', 'leather shoes', 'sandals', 'high heels')
    ],
    'hair': [
        Garment(k, PERSON.hair.colour)
        for k in ('short', 'long', 'ponytail', 'bun', 'curly', 'bald')
    ],
    'hat': [None] + [Garment(k, GREEN) for k in ('cap', 'beanie', 'sun hat')],
    'bag': [None]
    + [
        Garment(k, GREEN)
        for k in ('backpack', 'handbag', 'shoulder bag', 'shopping bag', 'suitcase')
    ],
    'scarf': [None, Garment('scarf', GREEN)],
    'held': [None] + [Garment(k, GREEN) for k in ('phone', 'cup', 'book', 'umbrella')],
    'glasses': ['none', 'glasses', 'sunglasses'],
    'beard': [False, True],
}


@pytest.mark.parametrize('thing', KINDS)
def test_every_kind_looks_different(thing: str) -> None:
    pose = Pose(0.3)
    images = [image(PERSON._replace(**{thing: kind}), pose) for kind in KINDS[thing]]
    for first, second in itertools.combinations(images, 2):
        assert changed(first, second) >= 12


def recoloured(person: Person, thing: str) -> Person | None:
    """Return the person with another colour of a thing, None if there is none.

    Glasses and beards come or go instead, and bald heads grow hair.
    """
    if thing == 'glasses':
        other = 'glasses' if person.glasses == 'none' else 'none'
        return person._replace(glasses=other)
    if thing == 'beard':
        return person._replace(beard=not person.beard)
    if thing == 'hair' and person.hair.kind == 'bald':
        return person._replace(hair=person.hair._replace(kind='short'))
    garment = person.upper if thing == 'second' else getattr(person, thing)
    if garment is None or (thing == 'second' and garment.second is None):
        return None
    worn = garment.second if thing == 'second' else garment.colour
    # the red of the skirts and the brown of hair are as far from white as from black
    other_rgb = (20, 20, 24) if sum(worn.rgb) > 380 else (240, 240, 236)
    colour = Colour('other', other_rgb)
    if thing == 'second':
        return person._replace(upper=garment._replace(second=colour))
    return person._replace(**{thing: garment._replace(colour=colour)})


def may_be_covered(person: Person, thing: str) -> bool:
    """Whether a thing that counts as seen may show next to no pixel."""
    if thing == 'hair':  # beneath a brim that is seen from above
        return person.hat is not None and person.hat.kind == 'sun hat'
    if thing == 'scarf':  # where long hair begins to fall over it
        return person.hair.kind == 'long'
    return thing == 'held' and person.held.kind == 'phone'  # by the fist and its sleeve


def may_show(person: Person, thing: str) -> bool:
    """Whether a thing that does not count as seen may show in some pixels."""
    if thing == 'bag':  # by its straps
        return person.bag.kind == 'backpack'
    if thing == 'glasses':  # by the eye that they cover, at the rim of the face
        return person.glasses == 'sunglasses'
    if thing == 'lower':  # in the gap of a coat whose pattern is drawn from the side
        return person.upper.kind == 'coat' and person.upper.pattern != 'plain'
    return False


@pytest.mark.parametrize('pitch', [0.1, 0.31])
def test_what_is_seen_is_what_is_drawn(pitch: float) -> None:
    view = VIEW._replace(pitch=pitch)
    people = itertools.islice(sample_people(RandomStream('figure'), Wardrobe()), 60)
    for i, person in enumerate(people):
        pose = sample_pose(RandomStream('pose', i))
        seen = visible_things(person, pose)
        before = image(person, pose, view)
        for thing in (
            'hair', 'beard', 'glasses', 'hat', 'upper', 'second', 'lower', 'shoes',
            'bag', 'scarf', 'held',
        ):  # fmt: skip
            if thing == 'hair' and 'beard' in seen:
                continue  # a beard shows the colour of hair that a hat hides
            other = recoloured(person, thing)
            if other is None:
                assert thing not in seen
                continue
            if thing in ('beard', 'glasses'):
                both = seen | visible_things(other, pose)
                says = thing in both
            else:
                says = thing in seen
            count = changed(before, image(other, pose, view))
            if says:
                enough = count >= 6 or may_be_covered(person, thing)
                assert enough, (thing, count, person, pose)
            else:
                assert not count or may_show(person, thing), (thing, person, pose)


@pytest.mark.parametrize('kind', ['short', 'long', 'ponytail', 'bun', 'curly', 'bald'])
def test_a_beanie_alone_hides_hair_and_only_some(kind: str) -> None:
    hair = Garment(kind, PERSON.hair.colour)
    for hat in KINDS['hat']:
        person = PERSON._replace(hair=hair, hat=hat)
        hides = hat is not None and hat.kind == 'beanie'
        is_hidden = hides and kind in ('short', 'bun', 'bald')
        for pose in (FRONT, BACK, Pose(1.5)):
            assert ('hair' in visible_things(person, pose)) != is_hidden
            shown = changed(
                image(person, pose), image(recoloured(person, 'hair'), pose)
            )
            assert bool(shown) != is_hidden


@pytest.mark.parametrize('thing', ['glasses', 'beard', 'held', 'second'])
def test_the_back_hides(thing: str) -> None:
    person = PERSON._replace(
        upper=Garment('t-shirt', RED, 'logo', WHITE),
        glasses='glasses',
        beard=True,
        held=Garment('phone', GREEN),
    )
    assert thing in visible_things(person, FRONT)
    assert thing not in visible_things(person, BACK)


def test_a_backpack_shows_from_the_back() -> None:
    person = PERSON._replace(bag=Garment('backpack', GREEN))
    assert 'bag' in visible_things(person, BACK)
    assert 'bag' not in visible_things(person, FRONT)


@pytest.mark.parametrize('yaw', [0.4, 1.2, 2.0, 2.9])
def test_the_mirrored_yaw_gives_the_mirrored_outline(yaw: float) -> None:
    empty = np.float32([205, 208, 210])
    left = np.abs(image(PERSON, Pose(yaw)) - empty).max(axis=2) > 30
    right = np.abs(image(PERSON, Pose(-yaw)) - empty).max(axis=2) > 30
    assert (left != right[:, ::-1]).sum() < 0.02 * left.sum()


def test_the_same_call_gives_the_same_bytes() -> None:
    person = next(sample_people(RandomStream('same'), Wardrobe()))
    pose = sample_pose(RandomStream('same'))
    assert image(person, pose).tobytes() == image(person, pose).tobytes()


def test_the_figure_is_as_high_as_promised() -> None:
    for i, person in enumerate(
        itertools.islice(sample_people(RandomStream('tall'), Wardrobe()), 60)
    ):
        pose = sample_pose(RandomStream('tall', i))
        pixels = image(person, pose, View((40, 170), 70.0))
        rows = np.abs(pixels - np.float32([205, 208, 210])).max(axis=(1, 2)) > 8
        top = int(np.argmax(rows))
        assert 170 - top <= 70.0 * figure_height(person, pose) + 1
        assert 170 - top >= 70.0 * figure_height(person, pose) * 0.93


def test_what_is_worn_below_leaves_the_creases_above() -> None:
    other = PERSON._replace(
        hair=Garment('short', WHITE),
        lower=Garment('trousers', GREEN),
        shoes=Garment('sneakers', RED),
    )
    upper = slice(44, 66)  # from the shoulders to above the waistband
    first, second = image(PERSON, FRONT)[upper], image(other, FRONT)[upper]
    np.testing.assert_array_equal(first, second)
    dyed = image(PERSON._replace(upper=Garment('t-shirt', BLUE)), FRONT)[upper]
    assert changed(first, dyed) > 300


def test_a_figure_may_leave_the_image() -> None:
    for feet in ((-30, 40), (5, 100), (79, 400), (500, -50)):
        image(PERSON, Pose(0.5), View(feet, 76.0, 0.2))


def test_pitch_shortens() -> None:
    flat = image(PERSON, FRONT, View((40, 170), 80.0))
    steep = image(PERSON, FRONT, View((40, 170), 80.0, 0.5))
    assert changed(flat[:40], steep[:40]) > 50
    tops = [
        int(np.argmax((np.abs(p - p[0, 0]) > 8).any(axis=(1, 2))))
        for p in (flat, steep)
    ]
    assert tops[0] + 8 < tops[1]
