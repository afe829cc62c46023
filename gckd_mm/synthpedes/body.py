"""A body in space: its shape, its posture, and where the image shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from gckd_mm.synthpedes.canvas import Point
from gckd_mm.synthpedes.pose import Pose, View, wrapped
from gckd_mm.synthpedes.wardrobe import Person

Joint = tuple[float, float, float]  # x to the person's left, y up, z ahead, in metres
Ring = tuple[float, float, float]  # height, half width, half depth in metres
Row = tuple[float, float, float]  # level, left and right end in pixels
Span = tuple[float, float]  # from, to: angles around the body, 0 is straight ahead


class Body:
    """The body of a person as a camera sees it.

    Lengths are in metres of a person of average height, and places count from the
    ground between the feet. What the image shows of them is in pixels.

    Args:
        person: Who, and what is carried, as that moves the arms.
        pose: How they stand.
        view: Where they stand and how the camera looks.

    Attributes:
        feet: The ground between the feet, in pixels.
        scale: Pixels of a metre.
        build: Of the person, as in ``Person``.
        cos: Cosine of the yaw.
        sin: Sine of the yaw.
        sin_pitch: Sine of the camera's pitch.
        head_yaw: Turn of the head against the camera, in radians.
        bag_side: On which side a bag is carried, -1 (right) or 1 (left); what is held
            is in the other hand.
    """

    def __init__(self, person: Person, pose: Pose, view: View) -> None:
        self.feet = view.feet
        self.scale = view.pixels_per_metre
        self.build = person.build
        self.sin_pitch = math.sin(view.pitch)
        self._cos_pitch = math.cos(view.pitch)
        yaw = wrapped(pose.yaw)
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.head_yaw = wrapped(pose.yaw + pose.head_turn)
        # what is carried goes to the side nearer to the camera
        self.bag_side = -1 if self.sin > 0.35 else 1
        self._pose = pose
        self._bag = person.bag.kind if person.bag else None
        self._held = person.held.kind if person.held else None
        woman = person.gender == 'woman'
        self._shoulder = (0.176 if woman else 0.2) * (0.5 + 0.5 * self.build)
        wide = 0.35 + 0.65 * self.build
        waist, hip = (0.128, 0.168) if woman else (0.158, 0.16)
        self._rings: list[Ring] = [
            (0.80, hip * wide * 1.04, 0.12 * wide),
            (0.92, hip * wide, 0.118 * wide),
            (1.10, waist * wide, 0.1 * wide),
            (1.29, (0.158 if woman else 0.178) * wide, 0.118 * wide),
            (1.385, self._shoulder * 0.95, 0.1 * wide),
            (1.43, self._shoulder * 0.72, 0.075 * wide),
            (1.465, self._shoulder * 0.42, 0.055),
        ]

    def at(self, x: float, y: float, z: float = 0.0) -> Point:
        """Return where the image shows a place."""
        z = z + self._pose.lean * y
        right, near = x * self.cos + z * self.sin, z * self.cos - x * self.sin
        return (
            self.feet[0] + self.scale * right,
            self.feet[1] - self.scale * (y * self._cos_pitch - near * self.sin_pitch),
        )

    def nearness(self, x: float, z: float) -> float:
        """Return how much nearer to the camera a place is than the feet."""
        return z * self.cos - x * self.sin

    def reach(self, half_width: float, half_depth: float) -> float:
        """Return half the width in pixels of an ellipse seen at this yaw."""
        wide, deep = half_width * self.cos, half_depth * self.sin
        return self.scale * math.sqrt(wide * wide + deep * deep)

    def surface(self, y: float) -> tuple[float, float]:
        """Return half the width and half the depth of the trunk at a height."""
        rings = self._rings
        if y <= rings[0][0]:
            return rings[0][1:]
        for (y0, a0, b0), (y1, a1, b1) in pairwise(rings):
            if y <= y1:
                share = (y - y0) / (y1 - y0)
                return a0 + (a1 - a0) * share, b0 + (b1 - b0) * share
        return rings[-1][1:]

    def trunk(self, heights: Sequence[float], margin: float = 0.0) -> list[Row]:
        """Return the outline of the trunk at heights, the top first."""
        rings = []
        for y in heights:
            a, b = self.surface(y)
            rings.append((y, a + margin, b + margin))
        return self.outline(rings)

    def outline(self, rings: Sequence[Ring]) -> list[Row]:
        """Return the outline of rings around the middle of the body."""
        rows = []
        for y, a, b in rings:
            x, level = self.at(0.0, y)
            reach = self.reach(a, b)
            rows.append((level, x - reach, x + reach))
        return rows

    def patch(self, rings: Sequence[Ring], spans: Sequence[Span]) -> list[Row]:
        """Return the seen part of an area on the surface of rings.

        Args:
            rings: The top first.
            spans: One for each ring.

        Returns:
            Rows; none if the area is out of sight.
        """
        rows: list[Row] = []
        for (y, a, b), (start, stop) in zip(rings, spans, strict=True):
            x, level = self.at(0.0, y)
            reach = self.reach(a, b)
            turn = math.atan2(b * self.sin, a * self.cos)
            middle, half = wrapped((start + stop) / 2 + turn), (stop - start) / 2
            low = max(middle - half, -math.pi / 2)
            high = min(middle + half, math.pi / 2)
            if high <= low:
                if rows:
                    break
                return []
            rows.append((level, x + reach * math.sin(low), x + reach * math.sin(high)))
        return rows if len(rows) > 1 else []

    def trunk_patch(
        self, top: float, bottom: float, spans: tuple[Span, Span]
    ) -> list[Row]:
        """Return the seen part of an area on the trunk.

        Args:
            top: Height of its upper end.
            bottom: Height of its lower end.
            spans: At the upper and at the lower end.

        Returns:
            Rows; none if the area is out of sight.
        """
        steps = [y for y, _, _ in reversed(self._rings) if bottom < y < top]
        (start0, stop0), (start1, stop1) = spans
        rings, angles = [], []
        for y in (top, *steps, bottom):
            share = (top - y) / (top - bottom)
            rings.append((y, *self.surface(y)))
            angles.append(
                (
                    start0 + (start1 - start0) * share,
                    stop0 + (stop1 - stop0) * share,
                )
            )
        return self.patch(rings, angles)

    def face_spot(self, angle: float, y: float) -> tuple[float, float, float]:
        """Return (x, y) of a place on the face and how squarely it is seen."""
        turn = self.head_yaw + angle
        x, level = self.at(0.0, y, 0.015)
        level += self.scale * 0.1 * math.cos(turn) * self.sin_pitch
        return x + self.scale * 0.104 * math.sin(turn), level, math.cos(turn)

    def behind_head(self, y: float, distance: float) -> Point:
        """Return where the image shows a place behind the middle of the head."""
        x, level = self.at(0.0, y, 0.015)
        return (
            x - distance * math.sin(self.head_yaw) * self.scale,
            level - distance * math.cos(self.head_yaw) * self.sin_pitch * self.scale,
        )

    def leg_joints(self, side: int) -> tuple[Joint, Joint, Joint]:
        """Return the hip, the knee and the ankle of a side, -1 (right) or 1."""
        lean = self._pose.lean
        swing = side * self._pose.stride * 0.36
        stance = 0.075 + 0.012 * self.build
        bend = 0.08 + 0.45 * max(-swing, 0.0)
        hip = (side * stance, 0.88, -lean * 0.88)
        knee = (
            side * stance,
            0.88 - 0.41 * math.cos(swing + bend * 0.5),
            0.41 * math.sin(swing + bend * 0.5) - lean * 0.47,
        )
        shin = swing - bend
        ankle = (
            side * (stance - 0.005),
            knee[1] - 0.4 * math.cos(shin),
            knee[2] + 0.4 * math.sin(shin),
        )
        return hip, knee, ankle

    def arm_joints(self, side: int) -> tuple[Joint, Joint, Joint]:
        """Return the shoulder, the elbow and the wrist of a side, -1 (right) or 1."""
        x, y = side * (self._shoulder - 0.03), 1.375
        shoulder = (x, y, 0.0)
        if side == -self.bag_side and self._held is not None:
            wide, high, ahead = _HOLDING[self._held]
            return (
                shoulder,
                (x + side * 0.045, y - 0.25, 0.0),
                (
                    side * wide,
                    high,
                    ahead,
                ),
            )
        swing, bent = -side * self._pose.arm_swing * 0.6, 0.22
        if side == self.bag_side:
            if self._bag in ('handbag', 'shopping bag'):
                swing, bent = swing * 0.3, 0.05
            elif self._bag == 'suitcase':
                swing, bent = -0.35, 0.0
        elbow = (
            x + side * 0.05,
            y - 0.26 * math.cos(swing),
            0.26 * math.sin(swing),
        )
        wrist = (
            elbow[0] + side * 0.01,
            elbow[1] - 0.24 * math.cos(swing + bent),
            elbow[2] + 0.24 * math.sin(swing + bent),
        )
        return shoulder, elbow, wrist


#: what is held -> where the wrist is: to the side, up and ahead
_HOLDING: dict[str, Joint] = {
    'phone': (0.1, 1.3, 0.27),
    'cup': (0.15, 1.2, 0.25),
    'book': (0.1, 1.17, 0.25),
    'umbrella': (0.2, 1.2, 0.17),
}


def between(first: Joint, second: Joint, share: float) -> Joint:
    """Return a place on the way from one to another."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def raised(place: Joint, height: float) -> Joint:
    """Return the place that much higher."""
    return place[0], place[1] + height, place[2]


def on_side(side: int, inner: float, outer: float) -> Span:
    """Return the span between two angles from the middle, on a side, -1 or 1."""
    return (inner, outer) if side > 0 else (-outer, -inner)
