"""A domain of a world: its people, its images and its captions."""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.annotator import (
    Annotator,
    sample_annotators,
    sample_web_annotator,
)
from gckd_mm.synthpedes.camera import Camera, photograph, sample_camera
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.caption import describe
from gckd_mm.synthpedes.figure import (
    figure_height,
    render_figure,
    visible_things,
)
from gckd_mm.synthpedes.occluder import render_occluder
from gckd_mm.synthpedes.places import DOMAIN_NAMES, PLACES, WORLD_NAMES, Place
from gckd_mm.synthpedes.pose import Pose, View, sample_pose
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.scene import render_scene
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.wardrobe import Person, Wardrobe, sample_people

#: height and width of an image, in pixels
PICTURE_SIZE = (160, 80)


class Sizes(NamedTuple):
    """How large a domain is rendered."""

    train: int = 600  # ids
    val: int = 100  # ids
    test: int = 200  # ids
    images: int = 4  # images of each id


class Shot(NamedTuple):
    """One image: whom it shows, and the how-manieth of this person it is."""

    pid: int
    split: str
    number: int


def default_sizes(name: str) -> Sizes:
    """Return the sizes with which results are published."""
    if name == 'web':
        return Sizes(train=10000, val=500, test=0, images=1)
    return Sizes(val=0) if not PLACES[name].has_val else Sizes()


class SynthDomain:
    """One of the domains of a world, rendered on demand.

    A world is a city, given by a seed: its street, its mall and its campus have people,
    a camera and an annotator of their own, all sampled from the ranges in
    :data:`gckd_mm.synthpedes.places.PLACES`. ``'web'`` is outside of all
    worlds: every image has another person and another camera, every caption another
    annotator, and one caption in ten is somebody else's.

    What is rendered depends on the generator's version and on these arguments alone,
    and an image does not depend on the sizes.

    Args:
        name: ``'street'``, ``'mall'``, ``'campus'`` or ``'web'``.
        world: Seed of the world, from 0; 0 for ``'web'``.
        sizes: Defaults to :func:`default_sizes`.
        camera_of: Domain whose camera is used, scene included. Defaults to ``name``.
        annotator_of: Domain whose annotator is used. Defaults to ``name``.

    Raises:
        InputError: If an argument is not one of those, or a split has a single id.
    """

    def __init__(
        self,
        name: str,
        world: int = 0,
        sizes: Sizes | None = None,
        camera_of: str | None = None,
        annotator_of: str | None = None,
    ) -> None:
        if name not in DOMAIN_NAMES:
            raise InputError(
                f'SynthPedes has the domains {", ".join(DOMAIN_NAMES)}, got {name!r}'
            )
        if isinstance(world, bool) or not isinstance(world, int) or world < 0:
            raise InputError(
                f'the seed of a world is a whole number from 0 on, got {world!r}'
            )
        if name == 'web' and world:
            raise InputError(f'web belongs to no world: its seed is 0, got {world}')
        crossed = WORLD_NAMES if name != 'web' else ()
        for key, other in (('camera_of', camera_of), ('annotator_of', annotator_of)):
            if other is not None and other not in crossed:
                raise InputError(
                    f'{key} of {name} must be one of {crossed}, got {other!r}'
                )
        self.name = name
        self.world = world
        self.sizes = _check_sizes(name, default_sizes(name) if sizes is None else sizes)
        self.camera_of = camera_of or name
        self.annotator_of = annotator_of or name
        self.stream = _stream_of(name, world)

    @property
    def place(self) -> Place:
        """What stays the same in every world."""
        return PLACES[self.name]

    @property
    def dataset_type(self) -> str:
        """Name of the real dataset in whose schema the domain is written."""
        return self.place.dataset_type

    @cached_property
    def camera(self) -> Camera | None:
        """The domain's camera; None for ``'web'``, where each image has its own."""
        if self.name == 'web':
            return None
        stream = _stream_of(self.camera_of, self.world).child('camera')
        return sample_camera(PLACES[self.camera_of].camera, stream)

    @cached_property
    def annotator(self) -> Annotator | None:
        """The domain's annotator; None for ``'web'``: each caption has its own."""
        if self.name == 'web':
            return None
        ranges = {name: PLACES[name].annotator for name in WORLD_NAMES}
        stream = RandomStream('synthpedes', 'world', self.world, 'annotators')
        return sample_annotators(ranges, stream)[self.annotator_of]

    @cached_property
    def people(self) -> dict[str, list[Person]]:
        """The people of each split."""
        wardrobe = Wardrobe(self._factors())
        web = self.name == 'web'
        return {
            split: list(
                itertools.islice(
                    sample_people(
                        self.stream.child(split),
                        wardrobe,
                        of_web=web,
                        twins=self.place.twins,
                    ),
                    count,
                )
            )
            for split, count in self._counts().items()
        }

    def describe(self) -> dict[str, Any]:
        """Return what determines the rendering, for the file beside it."""
        return {
            'generator': VERSION,
            'domain': self.name,
            'world': self.world,
            'camera_of': self.camera_of,
            'annotator_of': self.annotator_of,
            'sizes': self.sizes._asdict(),
        }

    def shots(self) -> list[Shot]:
        """Return every image, in the order of the annotation file."""
        pids = itertools.count(self.place.first_pid)
        return [
            Shot(pid, split, number)
            for split, count in self._counts().items()
            for pid in itertools.islice(pids, count)
            for number in range(self.sizes.images)
        ]

    def person(self, shot: Shot) -> Person:
        """Return whom an image shows."""
        return self.people[shot.split][self._index(shot)]

    def pose(self, shot: Shot) -> Pose:
        """Return how the person stands in an image."""
        return sample_pose(self._stream(shot).child('pose'))

    def camera_at(self, shot: Shot) -> Camera:
        """Return the camera of an image."""
        if self.camera is not None:
            return self.camera
        return sample_camera(self.place.camera, self._stream(shot).child('camera'))

    def annotator_at(self, shot: Shot, number: int) -> Annotator:
        """Return who writes a caption of an image."""
        if self.annotator is not None:
            return self.annotator
        stream = self._stream(shot).child('annotator', number)
        return sample_web_annotator(self.place.annotator, stream)

    def described(self, shot: Shot, number: int) -> Person:
        """Return whom a caption describes: in the web, now and then somebody else."""
        stream = self._stream(shot).child('described', number)
        if shot.split == 'train' and stream.chance(self.place.wrong_pairs):
            return stream.choice(self.people[shot.split])
        return self.person(shot)

    def draw_image(self, shot: Shot) -> np.ndarray:
        """Render an image: RGB, uint8, shape (160, 80, 3)."""
        stream = self._stream(shot)
        camera, person, pose = self.camera_at(shot), self.person(shot), self.pose(shot)
        height, width = PICTURE_SIZE
        dice = stream.child('view')
        pitch = math.radians(max(0.0, camera.pitch + dice.normal(0, 1.5)))
        canvas = Canvas(height, width)
        render_scene(canvas, camera.scene, _horizon(pitch), stream.child('scene'))
        fill = 0.87 + dice.normal(0, camera.framing)
        metres = figure_height(person, pose) * math.cos(pitch) + 0.3 * math.sin(pitch)
        x = width * (0.5 + dice.normal(0, camera.framing))
        y = height * (0.955 + dice.normal(0, camera.framing) / 2)
        view = View((x, y), height * fill / metres, pitch, dice.uniform(-1, 1))
        render_figure(canvas, person, pose, view)
        if dice.chance(camera.occlusion):
            render_occluder(canvas, camera.scene, stream.child('occluder'))
        return photograph(canvas.pixels, camera, stream.child('photograph'))

    def write_captions(self, shot: Shot) -> list[str]:
        """Write the captions of an image."""
        pose = self.pose(shot)
        captions = []
        for number in range(self.place.num_captions):
            person = self.described(shot, number)
            captions.append(
                describe(
                    person,
                    visible_things(person, pose),
                    self.annotator_at(shot, number),
                    self._stream(shot).child('caption', number),
                )
            )
        return captions

    def _stream(self, shot: Shot) -> RandomStream:
        return self.stream.child(shot.split, self._index(shot), shot.number)

    def _index(self, shot: Shot) -> int:
        index = shot.pid - self.place.first_pid
        for split, count in self._counts().items():
            if split == shot.split:
                return index
            index -= count
        raise KeyError(shot.split)

    def _counts(self) -> dict[str, int]:
        return {split: getattr(self.sizes, split) for split in ('train', 'val', 'test')}

    def _factors(self) -> dict[str, dict[str, float]]:
        """Return the place's taste, a little different in each world."""
        dice = self.stream.child('taste')
        return {
            attribute: {
                option: factor * (1 + self.place.fashion * dice.uniform(-1, 1))
                for option, factor in factors.items()
            }
            for attribute, factors in self.place.taste.items()
        }


def _stream_of(name: str, world: int) -> RandomStream:
    if name == 'web':
        return RandomStream('synthpedes', 'web')
    return RandomStream('synthpedes', 'world', world, name)


def _horizon(pitch: float) -> float:
    """Return where the ground ends: it rises as the camera looks down."""
    return max(0.0, 0.55 - 1.1 * pitch)


def _check_sizes(name: str, sizes: Sizes) -> Sizes:
    for key, value in sizes._asdict().items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(
                f'{name}: size {key} must be a whole number from 0 on, got {value!r}'
            )
    if sizes.images < 1:
        raise InputError(f'{name}: each id needs at least one picture, got 0')
    if sizes.val and not PLACES[name].has_val:
        raise InputError(
            f'{name}: has no val split, as in {PLACES[name].dataset_type}: set val=0'
        )
    needed = ('train',) if name == 'web' else ('train', 'test')
    for split in ('train', 'val', 'test'):
        count = getattr(sizes, split)
        if count == 1 or (count == 0 and split in needed):
            raise InputError(
                f'{name}: split {split} needs at least 2 ids to rank one person among '
                f'others, got {count}'
            )
    return sizes
