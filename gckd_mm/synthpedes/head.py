"""The head of a person: hair, face, beard, glasses and hat."""

from __future__ import annotations

import math

from gckd_mm.synthpedes.colours import darker, mixed, paler
from gckd_mm.synthpedes.painter import Painter
from gckd_mm.synthpedes.shading import RGB, Shading

_EYES = (34, 26, 28)


def is_from_behind(head_yaw: float) -> bool:
    """Return whether a head is so turned away that long hair falls over the neck."""
    return math.cos(head_yaw) <= -0.35


def render_head(painter: Painter) -> None:
    """Render a head with all that is on it, but for a :func:`render_mane` beside it."""
    person, yaw = painter.person, painter.body.head_yaw
    kind = person.hair.kind if 'hair' in painter.seen else 'bald'
    faces_us = math.cos(yaw) > 0
    if kind == 'long' and not is_from_behind(yaw):
        _render_strands(painter)
    if faces_us:
        _render_tied_hair(painter, kind)
    painter.ball((0.0, 1.58, 0.015), (0.104, 0.13), person.skin, painter.smooth)
    if kind != 'bald':
        _render_scalp(painter, kind)
    _render_face(painter)
    if kind == 'long' and is_from_behind(yaw):
        render_mane(painter)
    if not faces_us:
        _render_tied_hair(painter, kind)
    if person.hat is not None:
        render_hat = {
            'sun hat': _render_sun_hat,
            'beanie': _render_beanie,
            'cap': _render_cap,
        }
        render_hat[person.hat.kind](painter, person.hat.colour.rgb)


def render_mane(painter: Painter) -> None:
    """Render the long hair that falls over the shoulders."""
    body, s = painter.body, painter.scale
    x, top = body.behind_head(1.66, 0.03)
    bottom = body.behind_head(1.27, 0.06)[1]
    away = body.behind_head(1.3, 0.07)[0]
    rows = [
        (top, x - 0.1 * s, x + 0.1 * s),
        (top + (bottom - top) * 0.4, x - 0.125 * s, x + 0.125 * s),
        (bottom, away - 0.12 * s, away + 0.12 * s),
    ]
    colour = painter.person.hair.colour.rgb
    painter.canvas.column(rows, colour, rounding=0.07 * s, shading=painter.hairy)


def _render_strands(painter: Painter) -> None:
    """Render the long hair beside the cheeks."""
    body, s = painter.body, painter.scale
    for angle in (-1.35, 1.35):
        turn = body.head_yaw + angle
        if math.cos(turn) < -0.3:
            continue
        x, top = body.at(0.0, 1.60, 0.015)
        bottom = body.at(0.0, 1.34, 0.015)[1]
        shift = 0.106 * math.sin(turn) * s
        painter.canvas.limb(
            ((x + shift, top), (x + shift * 1.1, bottom)),
            (0.03 * s, 0.036 * s),
            painter.person.hair.colour.rgb,
            shading=painter.hairy,
        )


def _render_tied_hair(painter: Painter, kind: str) -> None:
    """Render a ponytail or a bun; nothing for other hair."""
    body, s = painter.body, painter.scale
    colour = painter.person.hair.colour.rgb
    if kind == 'ponytail':
        swing = 0.07 * abs(math.cos(body.head_yaw))
        middle = body.behind_head(1.56, 0.2)
        tip = body.behind_head(1.34, 0.15)
        joints = (
            body.behind_head(1.66, 0.12),
            (middle[0] + swing * s, middle[1]),
            (tip[0] + swing * s, tip[1]),
        )
        thickness = (0.04 * s, 0.055 * s, 0.02 * s)
        painter.canvas.limb(joints, thickness, colour, shading=painter.hairy)
    elif kind == 'bun':
        place = body.behind_head(1.735, 0.06)
        radii = (0.062 * s, 0.056 * s)
        painter.canvas.ellipse(place, radii, colour, shading=painter.hairy)


def _render_scalp(painter: Painter, kind: str) -> None:
    """Render the hair on the head itself; the face comes over it."""
    colour, s = painter.person.hair.colour.rgb, painter.scale
    wide, high, y = 0.116, 0.105, 1.63
    if kind == 'curly':
        wide, high, y = 0.155, 0.145, 1.62
        for angle in (-2.2, -1.3, 1.3, 2.2):
            place = (0.115 * math.sin(angle), 1.575, -0.04)
            painter.ball(place, (0.06, 0.06), colour, painter.hairy)
    painter.canvas.ellipse(
        painter.body.behind_head(y, 0.02),
        (wide * s, high * s),
        colour,
        shading=painter.hairy,
    )


def _render_face(painter: Painter) -> None:
    """Render the face, with beard and glasses, as far as it is in sight."""
    body, s, skin = painter.body, painter.scale, painter.person.skin
    canvas, yaw = painter.canvas, body.head_yaw
    low, high = _visible_arc(yaw, 1.22)
    if high <= low:
        return
    x, y = body.at(0.0, 1.558, 0.015)
    y += 0.05 * math.cos(yaw) * body.sin_pitch * s
    reach = 0.104 * s
    left, right = x + reach * math.sin(low), x + reach * math.sin(high)
    is_bald = painter.person.hair.kind == 'bald'
    if 'hair' in painter.seen and not is_bald and right - left > 1:
        canvas.ellipse(
            ((left + right) / 2, y),
            ((right - left) / 2, 0.1 * s),
            skin,
            shading=Shading(0.3, painter.light),
        )
    nose_x, nose_y, nose = body.face_spot(0.0, 1.55)
    if abs(yaw) > 0.5 and nose > -0.4:
        nose_x += math.copysign(0.008 * s, yaw)
        canvas.ellipse((nose_x, nose_y), (0.02 * s, 0.02 * s), skin)
    if 'beard' in painter.seen:
        _render_beard(painter)
    for angle in (-0.42, 0.42):
        cheek_x, cheek_y, square = body.face_spot(angle * 1.5, 1.535)
        if square > 0.1 and 'beard' not in painter.seen:
            radii = (0.026 * s * square, 0.02 * s)
            canvas.ellipse((cheek_x, cheek_y), radii, (232, 96, 96), alpha=0.3)
        eye_x, eye_y, square = body.face_spot(angle, 1.575)
        if square > 0.12 and painter.person.glasses != 'sunglasses':
            radii = (0.017 * s * square + 0.2, 0.023 * s)
            canvas.ellipse((eye_x, eye_y), radii, _EYES)
    _render_mouth(painter)
    if 'glasses' in painter.seen:
        _render_glasses(painter)


def _render_mouth(painter: Painter) -> None:
    body, s, person = painter.body, painter.scale, painter.person
    x, y, square = body.face_spot(0.0, 1.502)
    if square <= -0.2:
        return
    wide = 0.034 * s * max(square, 0.35)
    if abs(body.head_yaw) > 1.0:
        x -= math.copysign(0.02 * s, body.head_yaw)
    red = (196, 60, 66) if person.gender == 'woman' else None
    painter.canvas.limb(
        ((x - wide, y - 0.007 * s), (x, y + 0.003 * s), (x + wide, y - 0.007 * s)),
        (0.007 * s, 0.009 * s, 0.007 * s),
        red or mixed(person.skin, (60, 10, 20), 0.5),
    )


def _render_beard(painter: Painter) -> None:
    body, s = painter.body, painter.scale
    x, y = body.at(0.0, 1.492, 0.015)
    y += 0.05 * math.cos(body.head_yaw) * body.sin_pitch * s
    low, high = _visible_arc(body.head_yaw, 1.15)
    left, right = x + 0.1 * s * math.sin(low), x + 0.1 * s * math.sin(high)
    painter.canvas.ellipse(
        ((left + right) / 2, y),
        ((right - left) / 2, 0.062 * s),
        painter.person.hair.colour.rgb,
        shading=painter.smooth,
    )


def _render_glasses(painter: Painter) -> None:
    body, canvas, s = painter.body, painter.canvas, painter.scale
    yaw, frame = body.head_yaw, (22, 22, 26)
    spots = [body.face_spot(angle, 1.578) for angle in (-0.44, 0.44)]
    far, near = sorted(spots, key=lambda spot: spot[2])
    rim = 0.012 * s
    if far[2] > 0.1:
        canvas.limb((near[:2], far[:2]), (rim, rim), frame)
    if abs(yaw) > 0.45:  # the bow to the ear
        ear = body.face_spot(math.copysign(1.5, -yaw), 1.585)
        canvas.limb((near[:2], ear[:2]), (rim, rim), frame)
    for x, y, square in spots:
        if square < 0.05:
            continue
        wide = 0.04 * s * max(square, 0.35)
        canvas.ellipse((x, y), (wide, 0.036 * s), frame)
        if painter.person.glasses != 'sunglasses':
            radii = (wide - 0.9, 0.036 * s - 0.9)
            canvas.ellipse((x, y), radii, (214, 230, 240), alpha=0.6)
            canvas.ellipse((x, y), (0.012 * s, 0.014 * s), _EYES)


def _render_sun_hat(painter: Painter, colour: RGB) -> None:
    body, s = painter.body, painter.scale
    _render_crown(painter, 1.66, 1.79, 0.115, colour)
    x, y = body.at(0.0, 1.665, 0.015)
    ribbon = darker(_trim(colour), 0.4)
    painter.canvas.rectangle(x - 0.115 * s, y - 0.04 * s, x + 0.115 * s, y, ribbon)
    radii = (0.25 * s, (0.045 + 0.15 * body.sin_pitch) * s)
    painter.canvas.ellipse((x, y), radii, colour, shading=painter.thing)


def _render_beanie(painter: Painter, colour: RGB) -> None:
    s, trim = painter.scale, _trim(colour)
    painter.ball((0.0, 1.80, 0.0), (0.04, 0.04), trim, painter.fabric)
    _render_crown(painter, 1.625, 1.795, 0.122, colour)
    x, y = painter.body.at(0.0, 1.63, 0.015)
    painter.canvas.rectangle(
        x - 0.126 * s,
        y - 0.05 * s,
        x + 0.126 * s,
        y + 0.012 * s,
        trim,
        rounding=0.02 * s,
        shading=painter.smooth,
    )


def _render_cap(painter: Painter, colour: RGB) -> None:
    body, s, trim = painter.body, painter.scale, _trim(colour)
    facing, sine = math.cos(body.head_yaw), math.sin(body.head_yaw)
    x, y = body.at(0.0, 1.648, 0.015)
    x += 0.135 * sine * s
    y += 0.12 * facing * body.sin_pitch * s
    wide = math.sqrt((0.1 * facing) ** 2 + (0.085 * sine) ** 2) * s
    if facing < 0:  # the peak is behind the head
        radii = (wide, 0.024 * s)
        painter.canvas.ellipse((x, y), radii, trim, shading=painter.thing)
    _render_crown(painter, 1.635, 1.775, 0.12, colour)
    if facing >= 0:
        radii = (wide, 0.028 * s)
        painter.canvas.ellipse((x, y), radii, trim, shading=painter.thing)


def _render_crown(
    painter: Painter, bottom: float, top: float, half_width: float, colour: RGB
) -> None:
    """Render half an ellipse, flat side down."""
    middle, low = painter.body.at(0.0, bottom, 0.01)
    high = painter.body.at(0.0, top, 0.01)[1]
    rows = []
    for share in (0.995, 0.93, 0.8, 0.6, 0.35, 0.0):
        reach = painter.scale * half_width * math.sqrt(1.0 - share * share)
        rows.append((low + (high - low) * share, middle - reach, middle + reach))
    painter.canvas.column(rows, colour, shading=painter.fabric)


def _trim(colour: RGB) -> RGB:
    """Return the colour of a hat's peak, ribbon or brim, which stands out from it."""
    return paler(colour, 0.2) if sum(colour) < 150 else darker(colour, 0.25)


def _visible_arc(turn: float, half: float) -> tuple[float, float]:
    """Return the angles between which one sees an arc that reaches half to each side.

    The second is not above the first if the arc is out of sight.
    """
    return max(turn - half, -math.pi / 2), min(turn + half, math.pi / 2)
