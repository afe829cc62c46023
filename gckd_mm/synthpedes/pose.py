"""How a person stands and from where they are seen."""

from __future__ import annotations

import math
from typing import NamedTuple

from gckd_mm.synthpedes.canvas import Point
from gckd_mm.synthpedes.random_stream import RandomStream


class Pose(NamedTuple):
    """How a person stands or walks.

    Args:
        yaw: Turn in radians: 0 faces the camera, pi shows the back, pi / 2 faces right.
        stride: Swing of the legs, -1 … 1; 0 stands.
        arm_swing: Swing of the arms, -1 … 1.
        lean: How far the body leans forwards, about -0.05 … 0.1.
        head_turn: Turn of the head against the body, in radians.
    """

    yaw: float
    stride: float = 0.0
    arm_swing: float = 0.0
    lean: float = 0.0
    head_turn: float = 0.0


class View(NamedTuple):
    """Where a person stands on the image and how the camera looks.

    Args:
        feet: (x, y) of the ground between the feet, in pixels.
        pixels_per_metre: Scale.
        pitch: How far the camera looks down, in radians. Defaults to 0.
        light: Where light comes from, -1 (left) … 1 (right). Defaults to 0.
    """

    feet: Point
    pixels_per_metre: float
    pitch: float = 0.0
    light: float = 0.0


def sample_pose(stream: RandomStream) -> Pose:
    """Sample a pose; people come or go more often than they pass sideways."""
    side = stream.weighted({'front': 5, 'back': 3.5, 'side': 2.5})
    if side == 'front':
        yaw = stream.uniform(-0.8, 0.8)
    elif side == 'back':
        yaw = math.pi + stream.uniform(-0.8, 0.8)
    else:
        yaw = stream.choice((-1, 1)) * math.pi / 2 + stream.uniform(-0.5, 0.5)
    walks = stream.chance(0.75)
    stride = stream.choice((-1, 1)) * stream.uniform(0.35, 1.0) if walks else 0.0
    return Pose(
        yaw=wrapped(yaw),
        stride=stride + stream.uniform(-0.1, 0.1),
        arm_swing=stride * stream.uniform(0.5, 1.0) + stream.uniform(-0.12, 0.12),
        lean=stream.uniform(-0.01, 0.03) + 0.03 * abs(stride),
        head_turn=stream.uniform(-0.3, 0.3),
    )


def wrapped(angle: float) -> float:
    """Return the same angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
