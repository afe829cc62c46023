"""Legs, with what is worn on them and on the feet."""

from __future__ import annotations

from gckd_mm.synthpedes.body import Joint, between, raised
from gckd_mm.synthpedes.colours import darker, mixed
from gckd_mm.synthpedes.painter import Painter
from gckd_mm.synthpedes.shading import FLAT, RGB, Shading
from gckd_mm.synthpedes.wardrobe import Garment

_SKIRTS = ('skirt', 'long skirt')


def render_legs(painter: Painter) -> None:
    """Render both legs, the farther one first, with shoes and the lower garment."""
    body = painter.body
    # shorts under a coat count as out of sight, so no corner of them may show
    lower = painter.person.lower if 'lower' in painter.seen else None
    kind = lower.kind if lower else None
    for side in sorted((-1, 1), key=lambda side: body.nearness(side * 0.09, 0.0)):
        joints = body.leg_joints(side)
        if lower is None or kind == 'shorts' or kind in _SKIRTS:
            width = 0.9 + 0.1 * body.build
            radii = (0.068 * width, 0.048 * width, 0.034)
            painter.limb(joints, radii, painter.person.skin, painter.smooth)
        _render_shoe(painter, side, joints[2])
        if lower is not None and kind not in _SKIRTS:
            _render_trouser_leg(painter, lower, *joints)
    if lower is not None:
        render_hips = _render_skirt if kind in _SKIRTS else _render_seat
        render_hips(painter, lower)


def _render_trouser_leg(
    painter: Painter, lower: Garment, hip: Joint, knee: Joint, ankle: Joint
) -> None:
    kind, colour = lower.kind, lower.colour.rgb
    body, s = painter.body, painter.scale
    wide = {'leggings': 0.0, 'jeans': 0.012, 'trousers': 0.02}.get(kind, 0.03)
    radii = [0.074 * body.build**0.5 + wide * 0.6, 0.05 + wide, 0.036 + wide]
    joints: tuple[Joint, ...] = (hip, knee, ankle)
    if kind == 'shorts':
        joints = (hip, between(hip, knee, 0.82))
        radii = [0.085 * body.build**0.5, 0.092]
    boots = painter.person.shoes.kind == 'boots'
    if boots and kind in ('leggings', 'jeans'):
        joints = (hip, knee, between(knee, ankle, 0.4))
        radii[2] = 0.045 + wide
    shading = painter.smooth if kind == 'leggings' else painter.fabric
    painter.limb(joints, radii, colour, shading, painter.lower_cloth)
    if kind == 'jeans' and not boots:  # turned up
        pale = mixed(colour, (200, 212, 228), 0.55)
        x, y = body.at(*between(knee, ankle, 0.99))
        reach, tall = (radii[2] + 0.004) * s, 0.025 * s
        painter.canvas.rectangle(
            x - reach, y - tall, x + reach, y + tall, pale, shading=painter.thing
        )
    if kind == 'trousers':  # the pressed crease
        painter.limb((knee, ankle), (0.006, 0.006), darker(colour, 0.3))


def _render_skirt(painter: Painter, lower: Garment) -> None:
    body = painter.body
    hem, flare = (0.46, 0.235) if lower.kind == 'skirt' else (0.14, 0.27)
    a, b = body.surface(0.92)
    rows = body.outline(
        (
            (1.06, a * 0.86, b * 0.9),
            (0.92, a + 0.012, b + 0.012),
            (hem, flare * body.build**0.3, flare * 0.82),
        )
    )
    cloth = painter.lower_cloth
    painter.drape(rows, lower.colour.rgb, painter.fabric, cloth, hem=flare)


def _render_seat(painter: Painter, lower: Garment) -> None:
    """Render the upper part of trousers, which joins their legs."""
    painter.canvas.column(
        painter.body.trunk((1.06, 0.92, 0.83), 0.008),
        lower.colour.rgb,
        rounding=0.05 * painter.scale,
        cloth=painter.lower_cloth,
        shading=painter.fabric,
    )


def _render_shoe(painter: Painter, side: int, ankle: Joint) -> None:
    kind, colour = painter.person.shoes.kind, painter.person.shoes.colour.rgb
    x, y, z = ankle
    sole = y - 0.045
    heel, toe = (x, sole, z - 0.045), (x + side * 0.02, sole - 0.005, z + 0.145)
    if kind == 'high heels':
        heel, spike = (x, sole + 0.035, z - 0.03), (x, sole - 0.02, z - 0.05)
        painter.limb((heel, spike), (0.02, 0.011), colour, painter.thing)
        painter.limb((heel, toe), (0.034, 0.026), colour, painter.thing)
    elif kind == 'sandals':
        brown, thing = darker(colour, 0.35), painter.thing
        _render_sole(painter, heel, toe, 0.022, (0.036, 0.04), brown, thing)
        skin = painter.person.skin
        painter.limb((heel, toe), (0.034, 0.036), skin, painter.smooth)
        for share in (0.25, 0.75):
            strap_x, strap_y, strap_z = raised(between(heel, toe, share), 0.012)
            left, right = strap_x - 0.032, strap_x + 0.032
            ends = ((left, strap_y, strap_z), (right, strap_y, strap_z))
            painter.limb(ends, (0.013, 0.013), colour)
    elif kind == 'boots':
        shaft = ((x, y + 0.22, z), (x, y - 0.01, z))
        painter.limb((heel, toe), (0.046, 0.042), colour, painter.thing)
        painter.limb(shaft, (0.06, 0.05), colour, painter.thing)
        dark = darker(colour, 0.5)
        _render_sole(painter, heel, toe, 0.032, (0.014, 0.014), dark)
    elif kind == 'sneakers':
        rim = (246, 246, 242) if min(colour) <= 190 else (196, 198, 204)
        painter.limb((heel, toe), (0.045, 0.044), colour, painter.thing)
        _render_sole(painter, heel, toe, 0.026, (0.021, 0.021), rim)
    else:
        painter.limb((heel, toe), (0.045, 0.034), colour, painter.thing)
        dark = darker(colour, 0.6)
        _render_sole(painter, heel, toe, 0.026, (0.012, 0.012), dark)


def _render_sole(
    painter: Painter,
    heel: Joint,
    toe: Joint,
    below: float,
    radii: tuple[float, float],
    colour: RGB,
    shading: Shading = FLAT,
) -> None:
    ends = (raised(heel, -below), raised(toe, -below))
    painter.limb(ends, radii, colour, shading)
