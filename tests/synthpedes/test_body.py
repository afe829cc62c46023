from __future__ import annotations

import itertools
import math

import pytest

from gckd_mm.synthpedes.body import Body, between, on_side
from gckd_mm.synthpedes.pose import Pose, View, sample_pose
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.wardrobe import Wardrobe, sample_people

PEOPLE = list(itertools.islice(sample_people(RandomStream('body'), Wardrobe()), 40))
VIEW = View((40.0, 150.0), 76.0)


def bodies() -> list[Body]:
    return [
        Body(person, sample_pose(RandomStream('pose', number)), VIEW)
        for number, person in enumerate(PEOPLE)
    ]


@pytest.mark.parametrize('side', [-1, 1])
def test_bones_keep_their_length_in_every_pose(side: int) -> None:
    for body in bodies():
        hip, knee, ankle = body.leg_joints(side)
        assert math.dist(hip, knee) == pytest.approx(0.41, abs=0.03)
        assert math.dist(knee[1:], ankle[1:]) == pytest.approx(0.4)
        shoulder, elbow, wrist = body.arm_joints(side)
        assert 0.2 < math.dist(shoulder, elbow) < 0.3
        assert 0.1 < math.dist(elbow, wrist) < 0.4


def test_the_ground_between_the_feet_is_where_the_view_puts_it() -> None:
    for body in bodies():
        assert body.at(0.0, 0.0) == pytest.approx(VIEW.feet)


def test_the_outline_of_the_trunk_goes_down_and_has_a_width() -> None:
    for body in bodies():
        rows = body.trunk((1.465, 1.385, 1.29, 1.1, 0.92, 0.8))
        levels = [level for level, _, _ in rows]
        assert levels == sorted(levels)
        assert all(left < right for _, left, right in rows)


@pytest.mark.parametrize('yaw', [0.0, 0.5, -0.5, 1.5, 3.0])
def test_a_patch_is_in_sight_of_one_side_and_within_the_trunk(yaw: float) -> None:
    body = Body(PEOPLE[0], Pose(yaw), VIEW)
    spans = ((-0.5, 0.5), (-0.5, 0.5))
    rows = body.trunk_patch(1.4, 1.0, spans)
    assert bool(rows) == (yaw < 2)
    for level, left, right in rows:
        y = (VIEW.feet[1] - level) / body.scale
        ((_, trunk_left, trunk_right),) = body.trunk((y,))
        assert trunk_left - 1e-6 <= left < right <= trunk_right + 1e-6


def test_the_sides_mirror_one_another() -> None:
    assert on_side(1, 0.2, 0.7) == (0.2, 0.7)
    assert on_side(-1, 0.2, 0.7) == (-0.7, -0.2)
    assert between((0.0, 1.0, 2.0), (4.0, 1.0, 0.0), 0.25) == (1.0, 1.0, 1.5)
