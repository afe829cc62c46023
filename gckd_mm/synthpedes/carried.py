"""What a person carries: bags, and what a hand holds."""

from __future__ import annotations

import math
from functools import partial

from gckd_mm.synthpedes.body import Joint, on_side
from gckd_mm.synthpedes.colours import darker, mixed, paler
from gckd_mm.synthpedes.painter import Layer, Painter
from gckd_mm.synthpedes.shading import RGB, Shading
from gckd_mm.synthpedes.wardrobe import Garment

_STICK = (70, 60, 60)


def bag_layer(painter: Painter) -> Layer | None:
    """Return what hangs on the body: a backpack in sight, or a shoulder bag."""
    body, bag = painter.body, painter.person.bag
    if bag is None:
        return None
    if bag.kind == 'backpack' and 'bag' in painter.seen:
        _, b = body.surface(1.25)
        depth = body.nearness(0.0, -b - 0.08) + 0.02
        return depth, partial(_render_backpack, colour=bag.colour.rgb)
    if bag.kind == 'shoulder bag':
        depth = max(body.nearness(_hip(painter), 0.0), 0.0) + 0.1
        return depth, partial(_render_shoulder_bag, colour=bag.colour.rgb)
    return None


def render_straps(painter: Painter) -> None:
    """Render the straps by which a bag hangs, over the upper garment."""
    body, bag = painter.body, painter.person.bag
    if bag is None:
        return
    dark = darker(bag.colour.rgb, 0.15)
    if bag.kind == 'backpack':
        for side in (-1, 1):
            spans = (on_side(side, 0.5, 0.8), on_side(side, 0.75, 1.05))
            painter.patch(1.44, 1.02, spans, dark, shading=Shading(0.0, 0.0, 0.4))
    elif bag.kind == 'shoulder bag':
        side = body.bag_side
        depth = 0.1 if body.cos >= 0 else -0.1
        a, _ = body.surface(0.92)
        ends = ((-side * 0.1, 1.44, 0.0), (side * a, 0.95, depth * 0.7))
        painter.limb(ends, (0.017, 0.017), dark, Shading(0.0, 0.0, 0.3))


def render_in_hand(painter: Painter, side: int, wrist: Joint) -> None:
    """Render what a hand carries, before the hand closes on it."""
    bag, held = painter.person.bag, painter.person.held
    if side == painter.body.bag_side:
        if bag is not None and bag.kind in ('handbag', 'shopping bag'):
            _render_handbag(painter, side, wrist, bag)
        elif bag is not None and bag.kind == 'suitcase':
            _render_suitcase(painter, side, wrist, bag.colour.rgb)
    elif held is not None and 'held' in painter.seen:
        render = {
            'umbrella': _render_stick,
            'phone': _render_phone,
            'cup': _render_cup,
            'book': _render_book,
        }
        render[held.kind](painter, wrist, held.colour.rgb)


def render_umbrella(painter: Painter, colour: RGB) -> None:
    """Render the open umbrella, whose stick is rendered in the hand."""
    body, s = painter.body, painter.scale
    x, z = -body.bag_side * 0.17, 0.08
    middle, low = body.at(x, 1.8, z)
    high = body.at(x, 2.1, z)[1]
    painter.canvas.limb(
        ((middle, high), body.at(x, 2.13, z)), (0.012 * s, 0.008 * s), _STICK
    )
    pale = paler(colour, 0.5)
    if sum(colour) >= 620:
        pale = mixed(colour, (90, 110, 150), 0.45)
    half, shading = 0.46 * s, Shading(0.4, painter.light, 0.25)
    for inner, outer, tint in ((-1.0, 1.0, colour), (-0.6, -0.2, pale),
                               (0.2, 0.6, pale)):  # fmt: skip
        rows = []
        for share in (0.995, 0.93, 0.8, 0.6, 0.3, 0.0):
            reach = half * math.sqrt(1.0 - share * share)
            level = low + (high - low) * share
            rows.append((level, middle + reach * inner, middle + reach * outer))
        painter.canvas.column(rows, tint, shading=shading)


def _render_backpack(painter: Painter, colour: RGB) -> None:
    body, s = painter.body, painter.scale
    _, b = body.surface(1.25)
    z = -b - 0.075
    middle, high = body.at(0.0, 1.42, z)
    low = body.at(0.0, 0.95, z)[1]
    reach = body.reach(0.155, 0.1)
    rows = [
        (high, middle - reach * 0.82, middle + reach * 0.82),
        (low, middle - reach, middle + reach),
    ]
    painter.canvas.column(rows, colour, rounding=0.075 * s, shading=painter.fabric)
    if body.cos < 0.3:  # the pocket
        x, y = body.at(0.0, 1.07, z - 0.1)
        a, tall = body.reach(0.115, 0.05), 0.095 * s
        painter.canvas.rectangle(
            x - a,
            y - tall,
            x + a,
            y + tall,
            darker(colour, 0.25),
            rounding=0.04 * s,
            shading=painter.thing,
        )


def _render_shoulder_bag(painter: Painter, colour: RGB) -> None:
    top = (_hip(painter), 0.98, 0.0)
    _render_box(painter, top, 0.76, (0.1, 0.15), colour)


def _hip(painter: Painter) -> float:
    """Return how far to the side of the body a shoulder bag hangs."""
    a, _ = painter.body.surface(0.92)
    return painter.body.bag_side * (a + 0.05)


def _render_handbag(painter: Painter, side: int, wrist: Joint, bag: Garment) -> None:
    """Render a handbag or, of paper, a shopping bag."""
    x, y, z = wrist
    is_paper = bag.kind == 'shopping bag'
    sizes, high = ((0.15, 0.16), 0.36) if is_paper else ((0.11, 0.13), 0.19)
    colour, top = bag.colour.rgb, y - 0.13
    for shift in (-0.05, 0.05):
        handle = ((x + shift, top, z), (x, y - 0.04, z))
        painter.limb(handle, (0.01, 0.01), darker(colour, 0.35))
    place = (x + side * 0.03, top, z)
    _render_box(painter, place, top - high, sizes, colour, is_paper)


def _render_suitcase(painter: Painter, side: int, wrist: Joint, colour: RGB) -> None:
    body = painter.body
    x, y, z = wrist
    middle, back = x + side * 0.02, z - 0.12
    handle = ((middle, 0.6, back), (x, y - 0.02, z))
    painter.limb(handle, (0.013, 0.013), (70, 72, 78))
    _render_box(painter, (middle, 0.6, back), 0.07, (0.14, 0.15), colour)
    for shift in (-0.1, 0.1):
        wheel = (middle + shift * body.cos, 0.045, back + shift * body.sin)
        painter.ball(wheel, (0.032, 0.032), (40, 40, 44))


def _render_box(
    painter: Painter,
    top: Joint,
    bottom: float,
    sizes: tuple[float, float],
    colour: RGB,
    is_paper: bool = False,
) -> None:
    """Render a box-like bag.

    Args:
        painter: Paints.
        top: Middle of the upper side.
        bottom: Height of the lower side.
        sizes: Half the width and half the depth.
        colour: RGB in 0 … 255.
        is_paper: Whether it carries a label instead of a flap.
    """
    body, canvas, s = painter.body, painter.canvas, painter.scale
    x, _, z = top
    middle, high = body.at(*top)
    low = body.at(x, bottom, z)[1]
    reach = body.reach(*sizes)
    wide = 1.0 if is_paper else 1.12
    rows = (
        (high, middle - reach, middle + reach),
        (low, middle - reach * wide, middle + reach * wide),
    )
    rounding = (0.012 if is_paper else 0.035) * s
    canvas.column(rows, colour, rounding=rounding, shading=painter.thing)
    if is_paper:
        label = ((middle, (high + low) / 2), (reach * 0.5, reach * 0.5))
        canvas.ellipse(*label, paler(colour, 0.7))
        return
    flap = darker(colour, 0.28) if sum(colour) > 200 else paler(colour, 0.28)
    seam = high + (low - high) * 0.34
    left, right = middle - reach * 0.95, middle + reach * 0.95
    canvas.rectangle(left, seam, right, seam + 0.022 * s, flap)


def _render_stick(painter: Painter, wrist: Joint, colour: RGB) -> None:
    """Render the stick of an umbrella, whose colour it has not."""
    x, y, z = wrist
    ends = ((x, y - 0.05, z + 0.03), (x * 0.9, 1.84, 0.08))
    painter.limb(ends, (0.011, 0.011), _STICK)


def _render_phone(painter: Painter, wrist: Joint, colour: RGB) -> None:
    x, y, z = wrist
    ends = ((x, y + 0.01, z + 0.04), (x, y + 0.12, z + 0.05))
    painter.limb(ends, (0.04, 0.04), colour, painter.thing)


def _render_cup(painter: Painter, wrist: Joint, colour: RGB) -> None:
    body, canvas, s = painter.body, painter.canvas, painter.scale
    x, y, z = wrist
    middle, low = body.at(x, y - 0.03, z + 0.05)
    high = body.at(x, y + 0.13, z + 0.05)[1]
    a = 0.05 * s
    rows = (
        (high, middle - a, middle + a),
        (low, middle - a * 0.7, middle + a * 0.7),
    )
    canvas.column(rows, colour, shading=painter.thing)
    lid = (250, 250, 246) if sum(colour) < 600 else (90, 60, 45)
    left, right = middle - a * 1.1, middle + a * 1.1
    canvas.rectangle(left, high - 0.025 * s, right, high, lid)


def _render_book(painter: Painter, wrist: Joint, colour: RGB) -> None:
    body, canvas = painter.body, painter.canvas
    x, y, z = wrist
    middle, low = body.at(x * 0.5, y - 0.06, z + 0.04)
    high = body.at(x * 0.5, y + 0.15, z + 0.04)[1]
    a, page = body.reach(0.11, 0.07), 0.014 * painter.scale
    left, right = middle - a, middle + a
    canvas.rectangle(left, high, right, low, colour, shading=painter.thing)
    canvas.rectangle(left, high - page, right, high + page * 0.4, (250, 248, 240))
