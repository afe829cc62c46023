"""The trunk and the arms, with what is worn on them."""

from __future__ import annotations

from functools import partial

from gckd_mm.synthpedes.body import Joint, Row, between, on_side
from gckd_mm.synthpedes.carried import render_in_hand, render_straps
from gckd_mm.synthpedes.colours import darker, mixed, paler
from gckd_mm.synthpedes.painter import Layer, Painter
from gckd_mm.synthpedes.shading import RGB, Shading
from gckd_mm.synthpedes.wardrobe import Garment

#: upper garments that are worn open
OPEN = ('jacket', 'coat', 'suit jacket')

_SHORT_SLEEVED = ('t-shirt', 'tank top', 'dress')
#: how far a garment is off the body, in metres; the others 0.008
_ROOM = {'coat': 0.024, 'jacket': 0.022, 'hoodie': 0.02, 'sweater': 0.014}
#: how far the sleeves are off the arms; the others 0.003
_SLEEVE_ROOM = {'coat': 0.012, 'jacket': 0.012, 'hoodie': 0.012, 'sweater': 0.008}
#: height of the lower end; the others 0.86
_HEM = {'jacket': 0.8, 'suit jacket': 0.79, 'hoodie': 0.84, 'shirt': 0.83}


def render_torso(painter: Painter) -> None:
    """Render neck and trunk with the upper garment, the straps of a bag and a scarf."""
    upper, scarf = painter.person.upper, painter.person.scarf
    kind, colour = upper.kind, upper.colour.rgb
    _render_neck(painter)
    if kind == 'tank top':
        skin = painter.body.trunk((1.465, 1.43, 1.385, 1.29, 1.2), -0.004)
        painter.drape(skin, painter.person.skin, painter.smooth, rounding=0.03)
    rows = _upper_outline(painter, kind)
    painter.drape(rows, colour, painter.fabric, painter.upper_cloth, rounding=0.03)
    if kind == 'tank top':
        for side in (-1, 1):
            strap = ((side * 0.09, 1.44, 0.0), (side * 0.105, 1.31, 0.0))
            painter.limb(strap, (0.022, 0.03), colour)
    if kind in ('sweater', 'hoodie'):  # the knitted rim
        hem = _HEM.get(kind, 0.86)
        rim = painter.body.trunk((hem + 0.05, hem), _ROOM[kind] + 0.004)
        painter.drape(rim, darker(colour, 0.25), painter.fabric)
    if upper.second is not None and 'second' in painter.seen:
        if kind in OPEN:
            _render_opening(painter, upper, upper.second.rgb)
        if upper.pattern == 'logo':
            spans = ((-0.68, 0.68), (-0.72, 0.72))
            painter.patch(1.325, 1.11, spans, upper.second.rgb, rounding=0.03)
    _render_fastenings(painter, kind, colour)
    if kind == 'hoodie':
        _render_hood(painter, colour)
    render_straps(painter)
    if scarf is not None and 'scarf' in painter.seen:
        _render_scarf(painter, scarf.colour.rgb)


def arm_layer(painter: Painter, side: int) -> Layer:
    """Return an arm of a side, -1 (right) or 1, with its sleeve and what it carries."""
    joints = painter.body.arm_joints(side)
    shoulder, elbow, wrist = joints
    depth = painter.body.nearness(
        (shoulder[0] + wrist[0]) / 2, (elbow[2] + wrist[2]) * 0.6
    )
    return depth + 0.012, partial(_render_arm, side=side, joints=joints)


def _render_arm(
    painter: Painter, side: int, joints: tuple[Joint, Joint, Joint]
) -> None:
    skin = painter.person.skin
    x, y, z = joints[2]
    if painter.person.upper.kind in _SHORT_SLEEVED:
        slim = _slimness(painter)
        radii = (0.046 * slim, 0.038 * slim, 0.03)
        painter.limb(joints, radii, skin, painter.smooth)
    render_in_hand(painter, side, joints[2])
    _render_sleeve(painter, *joints)
    painter.ball((x, y - 0.025, z), (0.037, 0.046), skin, painter.smooth)


def _render_sleeve(
    painter: Painter, shoulder: Joint, elbow: Joint, wrist: Joint
) -> None:
    upper, slim = painter.person.upper, _slimness(painter)
    if upper.kind == 'tank top':
        return
    colour: RGB = upper.colour.rgb
    cloth = None if upper.pattern == 'two-tone' else painter.upper_cloth
    if upper.kind == 'vest' and upper.second is not None:
        colour, cloth = upper.second.rgb, None
    if upper.kind in _SHORT_SLEEVED:
        ends = (shoulder, between(shoulder, elbow, 0.62))
        painter.limb(ends, (0.057 * slim, 0.062 * slim), colour, painter.fabric, cloth)
        return
    room = _SLEEVE_ROOM.get(upper.kind, 0.003)
    radii = (0.056 * slim + room, 0.049 * slim + room, 0.038 + room)
    painter.limb((shoulder, elbow, wrist), radii, colour, painter.fabric, cloth)


def _slimness(painter: Painter) -> float:
    return 0.7 + 0.3 * painter.body.build


def _render_neck(painter: Painter) -> None:
    ends = ((0.0, 1.42, 0.0), (0.0, 1.52, 0.005))
    painter.limb(ends, (0.06, 0.052), painter.person.skin, painter.smooth)


def _upper_outline(painter: Painter, kind: str) -> list[Row]:
    """Return the outline of an upper garment without its sleeves."""
    body = painter.body
    if kind == 'tank top':
        a, b = body.surface(1.29)
        return body.outline([(1.345, a * 0.86, b)]) + body.trunk((1.29, 1.1, 0.9))
    room = _ROOM.get(kind, 0.008)
    rows = body.trunk((1.465, 1.43, 1.385, 1.29, 1.10, 0.92), room)
    if kind == 'coat':
        return rows + body.outline([(0.52, 0.235 * body.build**0.4, 0.2)])
    if kind == 'dress':
        return rows + body.outline([(0.50, 0.27 * body.build**0.3, 0.235)])
    return rows + body.trunk((_HEM.get(kind, 0.86),), room + 0.004)


def _render_opening(painter: Painter, upper: Garment, inner: RGB) -> None:
    """Render what shows between the two sides of an open garment."""
    person, body = painter.person, painter.body
    is_suit, colour = upper.kind == 'suit jacket', upper.colour.rgb
    wide, narrow = (0.5, 0.04) if is_suit else (0.42, 0.4)
    low = {'jacket': 0.8, 'coat': 0.84, 'suit jacket': 1.06}[upper.kind]
    spans = ((-wide, wide), (-narrow, narrow))
    if not body.trunk_patch(1.45, low, spans):
        return
    if upper.kind == 'coat' and person.lower is not None:
        a, b = body.surface(0.84)
        below = body.patch(
            ((0.84, a, b), (0.505, 0.235, 0.2)), ((-0.4, 0.4), (-0.46, 0.46))
        )
        if below:
            painter.canvas.column(below, darker(person.lower.colour.rgb, 0.1))
    painter.patch(1.45, low, spans, inner, shading=Shading(0.25, 0.0, 0.3))
    if is_suit:
        lapel = paler(colour, 0.2) if sum(colour) < 160 else darker(colour, 0.42)
        for side in (-1, 1):
            spans = (on_side(side, wide * 0.9, wide + 0.3), on_side(side, 0.02, 0.14))
            painter.patch(1.44, 1.08, spans, lapel)
        if person.gender == 'man':
            tie = mixed(colour, (150, 20, 40), 0.6)
            painter.patch(1.42, 1.1, ((-0.1, 0.1), (-0.14, 0.14)), tie)


def _render_fastenings(painter: Painter, kind: str, colour: RGB) -> None:
    """Render the collar, buttons, belt or the like by which one knows a kind."""
    body = painter.body
    line = darker(colour, 0.35) if sum(colour) > 300 else paler(colour, 0.35)
    middle = ((-0.06, 0.06), (-0.06, 0.06))
    if kind == 'shirt':
        for side in (-1, 1):
            spans = (on_side(side, 0.1, 1.0), on_side(side, 0.25, 0.75))
            pale = paler(colour, 0.4)
            painter.patch(1.475, 1.40, spans, pale, shading=painter.thing)
        if body.cos > 0.1:
            painter.patch(1.42, 0.84, middle, line)
    elif kind == 'vest':
        if body.cos > 0.1:
            painter.patch(1.44, 0.87, middle, line)
        for y in (1.3, 1.18, 1.06, 0.96):  # quilted
            quilt = body.trunk((y + 0.008, y - 0.008), 0.004)
            painter.canvas.column(quilt, (0, 0, 0), alpha=0.16)
    elif kind == 'hoodie' and body.cos > 0.2:
        painter.patch(  # the pocket
            1.06,
            0.93,
            ((-0.55, 0.55), (-0.8, 0.8)),
            (0, 0, 0),
            alpha=0.2,
            rounding=0.02,
            shading=Shading(0.0, 0.0, 0.3),
        )
    elif kind == 'dress':
        belt = body.trunk((1.105, 1.06), 0.012)
        painter.drape(belt, darker(colour, 0.4), painter.smooth)
    elif kind in ('t-shirt', 'sweater') and body.cos > 0:
        neckline = painter.person.skin if kind == 't-shirt' else line
        painter.ball((0.0, 1.435, 0.05), (0.062, 0.026), neckline)


def _render_hood(painter: Painter, colour: RGB) -> None:
    if painter.body.cos < 0.2:
        painter.ball((0.0, 1.40, -0.085), (0.115, 0.1), colour, painter.fabric)
        dark = darker(colour, 0.5)
        painter.ball((0.0, 1.455, -0.075), (0.085, 0.028), dark, painter.smooth)
        return
    painter.ball((0.0, 1.455, -0.03), (0.125, 0.06), colour, painter.fabric)
    _render_neck(painter)
    string = (240, 240, 236) if sum(colour) < 560 else (90, 90, 96)
    for side in (-1, 1):
        ends = ((side * 0.04, 1.41, 0.09), (side * 0.045, 1.29, 0.115))
        painter.limb(ends, (0.008, 0.008), string)


def _render_scarf(painter: Painter, colour: RGB) -> None:
    painter.ball((0.0, 1.45, 0.01), (0.105, 0.06), colour, painter.fabric)
    if painter.body.cos > -0.1:
        ends = ((0.05, 1.43, 0.1), (0.065, 1.14, 0.13))
        painter.limb(ends, (0.04, 0.046), darker(colour, 0.12), painter.fabric)
