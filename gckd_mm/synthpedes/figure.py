"""Render a person."""

from __future__ import annotations

import math
from functools import partial

from gckd_mm.synthpedes.body import Body
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.carried import bag_layer, render_umbrella
from gckd_mm.synthpedes.head import is_from_behind, render_head, render_mane
from gckd_mm.synthpedes.lower_clothes import render_legs
from gckd_mm.synthpedes.painter import Layer, Painter
from gckd_mm.synthpedes.pose import Pose, View, wrapped
from gckd_mm.synthpedes.upper_clothes import OPEN, arm_layer, render_torso
from gckd_mm.synthpedes.wardrobe import Person

_BEHIND = math.radians(100)  # from here on the face is out of sight
_SIDE = math.radians(60)
_STRAPS_ONLY = math.radians(40)


def visible_things(person: Person, pose: Pose) -> frozenset[str]:
    """Name what one can see of a person, as :func:`render_figure` renders it.

    Returns:
        Some of 'hair', 'beard', 'glasses', 'hat', 'upper', 'second' (the layer under
        an open garment, or the other colour of a pattern), 'lower', 'shoes', 'bag',
        'scarf', 'held'. A backpack counts as seen if more than its straps are.
    """
    turn = abs(wrapped(pose.yaw))
    head = abs(wrapped(pose.yaw + pose.head_turn))
    upper, hair = person.upper, person.hair.kind
    seen = {'upper', 'shoes'}
    if person.hat is not None:
        seen.add('hat')
    if not person.hides_hair:
        seen.add('hair')
    if person.beard and head < _BEHIND:
        seen.add('beard')
    if person.glasses != 'none' and head < _BEHIND:
        seen.add('glasses')
    if upper.second is not None:
        opening = upper.kind in OPEN and turn < _SIDE
        print_on_it = upper.pattern not in ('plain', 'logo')
        logo = upper.pattern == 'logo' and turn < _SIDE
        if opening or print_on_it or logo or upper.kind == 'vest':
            seen.add('second')
    if person.lower is not None:
        hidden = upper.kind == 'coat' and person.lower.kind == 'shorts'
        if not hidden or turn < _SIDE:
            seen.add('lower')
    if person.bag is not None and (
        person.bag.kind != 'backpack' or turn >= _STRAPS_ONLY
    ):
        seen.add('bag')
    # long hair falls over a scarf behind
    if person.scarf is not None and (hair != 'long' or not is_from_behind(head)):
        seen.add('scarf')
    if person.held is not None and (
        person.held.kind == 'umbrella' or turn < math.radians(110)
    ):
        seen.add('held')
    return frozenset(seen)


def figure_height(person: Person, pose: Pose) -> float:
    """Return the height of a person in metres, with hat and umbrella."""
    height = 1.75
    if person.hair.kind in ('bun', 'curly'):
        height = 1.80
    if person.hat is not None:
        height = max(height, 1.84 if person.hat.kind == 'beanie' else 1.79)
    if person.held is not None and person.held.kind == 'umbrella':
        height = 2.14
    return height


def render_figure(canvas: Canvas, person: Person, pose: Pose, view: View) -> None:
    """Render a person and the shadow at the feet.

    Args:
        canvas: Is painted on.
        person: Who, and what is worn.
        pose: How they stand.
        view: Where they stand and how the camera looks.
    """
    body = Body(person, pose, view)
    seen = visible_things(person, pose)
    painter = Painter(canvas, person, body, seen, view.light)
    _render_shadow(painter)
    for _, paint in sorted(_layers(painter), key=lambda layer: layer[0]):
        paint(painter)


def _layers(painter: Painter) -> list[Layer]:
    """Return the parts of a person; of two as near, the later one is painted last."""
    person, head_yaw = painter.person, painter.body.head_yaw
    layers: list[Layer] = [
        (-0.04, render_legs),
        (0.0, render_torso),
        (0.03, render_head),
    ]
    if person.hair.kind == 'long' and not is_from_behind(head_yaw):
        # from the front it falls behind the shoulders, from the side over them
        depth = -0.02 if math.cos(head_yaw) > 0.5 else 0.02
        layers.append((depth, render_mane))
    layers += [arm_layer(painter, side) for side in (-1, 1)]
    bag = bag_layer(painter)
    if bag is not None:
        layers.append(bag)
    if person.held is not None and person.held.kind == 'umbrella':
        colour = person.held.colour.rgb
        layers.append((math.inf, partial(render_umbrella, colour=colour)))
    return layers


def _render_shadow(painter: Painter) -> None:
    (x, y), s = painter.body.feet, painter.scale
    for size, alpha in ((1.0, 0.16), (0.68, 0.24)):
        painter.canvas.ellipse(
            (x - painter.light * 0.1 * s, y),
            (0.34 * s * size, (0.05 + 0.2 * painter.body.sin_pitch) * s * size),
            (24, 24, 34),
            alpha=alpha,
        )
