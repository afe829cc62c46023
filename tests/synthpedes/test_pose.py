from __future__ import annotations

import math

import pytest

from gckd_mm.synthpedes.pose import sample_pose, wrapped
from gckd_mm.synthpedes.random_stream import RandomStream


def test_poses_face_every_way_and_fronts_are_commonest() -> None:
    stream = RandomStream('poses')
    turns = [abs(math.degrees(sample_pose(stream).yaw)) for _ in range(600)]
    front, back = (sum(t < 55 for t in turns), sum(t > 125 for t in turns))
    side = len(turns) - front - back
    assert front > side > 60
    assert back > side


@pytest.mark.parametrize('turns', [-2, -1, 1, 3])
def test_a_whole_turn_changes_no_angle(turns: int) -> None:
    for angle in (-3.1, -1.0, 0.0, 2.0, 3.1):
        assert wrapped(angle + turns * 2 * math.pi) == pytest.approx(angle)
    assert wrapped(math.pi) == -math.pi
