"""Domains: what they depend on, and what they refuse."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.domain import (
    PICTURE_SIZE,
    Shot,
    Sizes,
    SynthDomain,
    default_sizes,
)
from gckd_mm.synthpedes.places import DOMAIN_NAMES, PLACES, WORLD_NAMES
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.writer import write_domain

SMALL = Sizes(train=4, val=2, test=3, images=2)


def small(name: str, world: int = 0, **kwargs: str) -> SynthDomain:
    sizes = SMALL if PLACES[name].has_val else SMALL._replace(val=0)
    return SynthDomain(name, world, sizes, **kwargs)


@pytest.mark.parametrize('name', DOMAIN_NAMES)
def test_shots_cover_every_split(name: str) -> None:
    domain = small(name)
    shots = domain.shots()
    assert len(set(shots)) == len(shots) == sum(domain.sizes[:3]) * 2
    for split in ('train', 'val', 'test'):
        pids = {shot.pid for shot in shots if shot.split == split}
        assert len(pids) == getattr(domain.sizes, split)
    assert [shot.pid for shot in shots] == sorted(shot.pid for shot in shots)
    assert shots[0].pid == (0 if name == 'mall' else 1)


@pytest.mark.parametrize('name', DOMAIN_NAMES)
def test_draws_images_and_captions(name: str) -> None:
    domain = small(name)
    shot = domain.shots()[0]
    image = domain.draw_image(shot)
    assert image.shape == (*PICTURE_SIZE, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    captions = domain.write_captions(shot)
    assert len(captions) == (2 if name in ('street', 'mall') else 1)
    assert all(captions)


@pytest.mark.parametrize('name', WORLD_NAMES)
def test_a_image_depends_on_neither_sizes_nor_order(name: str) -> None:
    domain = small(name)
    shots = [shot for shot in domain.shots() if shot.split == 'test']
    larger = SynthDomain(name, 0, default_sizes(name)._replace(train=7, test=5))
    others = [shot for shot in larger.shots() if shot.split == 'test']
    same = [shot for shot in others if shot.number < 2][: len(shots)]
    for shot, other in reversed(list(zip(shots, same, strict=True))):
        assert domain.person(shot) == larger.person(other)
        np.testing.assert_array_equal(domain.draw_image(shot), larger.draw_image(other))
        assert domain.write_captions(shot) == larger.write_captions(other)


def looks(name: str, world: int) -> list[tuple[str, ...]]:
    """The looks of everybody in a domain of the default size."""
    splits = SynthDomain(name, world).people.values()
    return [person.look for split in splits for person in split]


@pytest.mark.parametrize('world', range(3))
def test_no_two_people_of_a_world_look_the_same(world: int) -> None:
    crowd = [look for name in WORLD_NAMES for look in looks(name, world)]
    assert len(crowd) == 900 + 900 + 800
    assert len(set(crowd)) == len(crowd)


def test_another_world_is_another_city() -> None:
    assert not set(looks('street', 0)) & set(looks('street', 1))
    first, second = small('street', 0), small('street', 1)
    assert first.camera != second.camera
    assert first.annotator.words != second.annotator.words
    shot = first.shots()[0]
    assert (first.draw_image(shot) != second.draw_image(shot)).mean() > 0.5


@pytest.mark.parametrize('world', range(4))
def test_cameras_stay_in_the_stated_ranges(world: int) -> None:
    for name in WORLD_NAMES:
        domain = small(name, world)
        assert PLACES[name].camera.contains(domain.camera)
        low, high = PLACES[name].annotator.loyalty
        assert low <= domain.annotator.loyalty <= high


def test_domains_of_a_world_share_no_camera_and_no_annotator() -> None:
    domains = [small(name) for name in WORLD_NAMES]
    assert len({domain.camera for domain in domains}) == 3
    words = [domain.annotator.words for domain in domains]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        different = [words[first][key] != words[second][key] for key in words[0]]
        assert np.mean(different) > 0.4


def test_crossing_changes_the_camera_or_the_annotator_alone() -> None:
    plain = small('mall')
    shot = plain.shots()[3]
    camera = small('mall', camera_of='street')
    annotator = small('mall', annotator_of='street')
    assert camera.camera == small('street').camera
    assert camera.write_captions(shot) == plain.write_captions(shot)
    assert (camera.draw_image(shot) != plain.draw_image(shot)).mean() > 0.5
    assert annotator.annotator == small('street').annotator
    assert annotator.write_captions(shot) != plain.write_captions(shot)
    np.testing.assert_array_equal(annotator.draw_image(shot), plain.draw_image(shot))
    for domain in (camera, annotator):
        assert domain.person(shot) == plain.person(shot)
        assert domain.pose(shot) == plain.pose(shot)
        assert domain.describe() != plain.describe()


def test_nothing_of_the_web_is_in_a_world() -> None:
    web = SynthDomain('web', sizes=Sizes(train=300, val=50, test=0, images=1))
    of_web = {person.look for split in web.people.values() for person in split}
    assert len(of_web) == 350
    for world in range(2):
        for name in WORLD_NAMES:
            assert not of_web & set(looks(name, world))


def test_every_image_of_the_web_has_a_camera_and_an_annotator_of_its_own() -> None:
    web = SynthDomain('web', sizes=Sizes(train=300, val=50, test=0, images=1))
    assert len({web.camera_at(shot) for shot in web.shots()}) == 350
    words = {tuple(web.annotator_at(shot, 0).words.values()) for shot in web.shots()}
    assert len(words) == 350


def test_no_two_domains_draw_from_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: set[str] = set()
    open_stream = RandomStream.__init__

    def remember(stream: RandomStream, *path: str | int) -> None:
        seeds.add('/'.join(map(str, path)))
        open_stream(stream, *path)

    monkeypatch.setattr(RandomStream, '__init__', remember)
    before: set[str] = set()
    for name, world in [*itertools.product(WORLD_NAMES, range(2)), ('web', 0)]:
        seeds.clear()
        domain = small(name, world)
        for shot in domain.shots():
            domain.draw_image(shot)
            domain.write_captions(shot)
        shared = f'synthpedes/world/{world}/annotators'  # who must not write alike
        own = {seed for seed in seeds if not seed.startswith(shared)}
        assert len(own) > 5 * len(domain.shots())
        assert not own & before
        before |= own


def test_one_caption_in_ten_of_the_web_is_somebody_elses() -> None:
    web = SynthDomain('web', sizes=Sizes(train=600, val=2, test=0, images=1))
    wrong = [shot for shot in web.shots() if web.described(shot, 0) != web.person(shot)]
    assert 0.06 < len(wrong) / 600 < 0.14
    assert all(shot.split == 'train' for shot in wrong)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('beach', 0), "street, mall, campus, web, got 'beach'"),
        (('street', '0'), "whole number from 0 on, got '0'"),
        (('street', 1.0), 'whole number from 0 on, got 1.0'),
        (('street', True), 'whole number from 0 on, got True'),
        (('street', -1), 'whole number from 0 on, got -1'),
        (('web', 3), 'belongs to no world: its seed is 0, got 3'),
        (('street', 0, Sizes(train=1)), 'split train needs at least 2 ids'),
        (('street', 0, Sizes(test=0)), 'split test needs at least 2 ids'),
        (('street', 0, Sizes(val=1)), 'split val needs at least 2 ids'),
        (('street', 0, Sizes(images=0)), 'at least one picture'),
        (
            ('street', 0, Sizes(train=2.5)),
            'size train must be a whole number from 0 on, got 2.5',
        ),
        (
            ('street', 0, Sizes(train=-2)),
            'size train must be a whole number from 0 on, got -2',
        ),
        (('campus', 0, Sizes()), 'has no val split, as in ICFGPEDES: set val=0'),
        (('street', 0, SMALL, 'web'), "camera_of of street must be one of .* 'web'"),
        (('web', 0, None, None, 'mall'), 'annotator_of of web'),
    ],
)
def test_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SynthDomain(*arguments)


#: Version -> domain -> checksums of images, of files and of people. What changes them
#: is another version, and voids every published table: add a line, never edit one.
FROZEN: dict[str, dict[str, tuple[str, str, str]]] = {
    '1.0': {
        'street': ('b72f953b652cd426', 'f1b7d4f173b8198c', 'ef5be5627e3f7881'),
        'mall': ('3a7a1651b00e2a77', '4464b13b9f73a75f', 'e40a106333b8fc3f'),
        'campus': ('6270cd637fb620a6', '1d181ee2577fc924', '28c650b1020cfa3c'),
        'web': ('53d0822c49ee7791', '863971477c7b82a6', '418116ed84f9317d'),
    },
}


def usual(name: str, world: int) -> SynthDomain:
    """A domain of the default size; of the web, whose people take long, a part."""
    sizes = default_sizes(name)
    return SynthDomain(name, world, sizes._replace(train=min(600, sizes.train)))


def checksum(parts: Iterable[bytes]) -> str:
    """Checksum of all parts together, short enough to compare by eye."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def images(name: str) -> Iterator[bytes]:
    """The pixels of enough images to hold most kinds, poses and occluders."""
    domain = usual(name, 0)
    for shot in domain.shots()[:: len(domain.shots()) // 60]:
        yield domain.draw_image(shot).tobytes()
        yield bytes([domain.camera_at(shot).quality])


def files(name: str, folder: Path) -> Iterator[bytes]:
    """The names of all files, and the annotation file, whole."""
    domain = small(name)
    write_domain(domain, folder, processes=1)
    for path in sorted(folder.rglob('*')):
        yield str(path.relative_to(folder)).encode()
        if path.suffix == '.json' and path.name != 'synthpedes.json':
            yield path.read_bytes()


def people(name: str) -> Iterator[bytes]:
    """Everybody of two worlds at the default sizes, and what is said of some."""
    for world in (0,) if name == 'web' else (0, 1):
        domain = usual(name, world)
        yield repr(default_sizes(name)).encode()
        for split in domain.people.values():
            yield repr(split).encode()
        for shot in domain.shots()[::40]:
            yield json.dumps(domain.write_captions(shot)).encode()


@pytest.mark.parametrize('name', DOMAIN_NAMES)
def test_frozen(name: str, tmp_path: Path) -> None:
    found = tuple(
        checksum(parts)
        for parts in (images(name), files(name, tmp_path / name), people(name))
    )
    assert found == FROZEN[VERSION][name]


def test_a_shot_of_another_split_is_refused() -> None:
    with pytest.raises(KeyError):
        small('street').person(Shot(1, 'trian', 0))
