"""The places of SynthPedes: what is behind a person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.backdrop import (
    render_house_fronts,
    render_parked_car,
    render_shop_window,
    render_tree,
)
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.colours import LEAVES, PAINTS, muted, scaled, varied
from gckd_mm.synthpedes.ground import band, joints, lay_ground, stripes
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.sheet import Sheet, doubled

SCENES = ('street', 'mall', 'park', 'plaza', 'corridor', 'platform')


def render_scene(
    canvas: Canvas, scene: str, horizon: float, stream: RandomStream
) -> None:
    """Fill a canvas with a place, other in layout and tone at every call.

    The place is rendered at half the size and enlarged, which is quick and leaves it as
    soft as what is behind the focus of a lens.

    Args:
        canvas: All of it is overdrawn.
        scene: A name of :data:`SCENES`.
        horizon: Share of the height, from the top, where the ground meets what is
            behind it; 0 or less shows only ground, as a camera does that looks down.
        stream: Random numbers of this image.

    Raises:
        InputError: There is no such scene.
    """
    if scene not in _SCENES:
        raise InputError(
            f'scene: there is no {scene!r}; choose one of {", ".join(_SCENES)}'
        )
    height, width, _ = canvas.pixels.shape
    small = np.zeros(((height + 1) // 2, (width + 1) // 2, 3), np.float32)
    _SCENES[scene](Sheet(small), min(max(horizon, 0.0), 1.0), stream)
    soft = doubled(small)
    np.clip(soft[:height, :width], 0, 255, out=canvas.pixels)


def _street(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    if ground.top:
        render_house_fronts(sheet, horizon, stream)
    asphalt = varied((112, 112, 114), stream, 16)
    paving = varied((158, 154, 146), stream, 14)
    paint = varied((206, 204, 196), stream, 10)
    sheet.fade(horizon, 1, scaled(asphalt, 1.08), scaled(asphalt, 0.95))
    layout = stream.choice(('kerb', 'kerb', 'zebra', 'lanes'))
    top = ground.top
    if layout == 'kerb':
        far = horizon + (1 - horizon) * stream.uniform(0.05, 0.12)
        near = horizon + (1 - horizon) * stream.uniform(0.35, 0.65)
        sheet.box(0, horizon, 1, far, scaled(paving, 0.94))
        sheet.box(0, far, 1, far + 0.012, scaled(paving, 1.12))
        sheet.fade(near, 1, paving, scaled(paving, 0.95))
        skip = sheet.row(near) - top
        lines = joints(ground, 0.5, 0.06)[skip:]
        sheet.cover(top + skip, 0, lines, scaled(paving, 0.82), 0.7)
        sheet.box(0, near, 1, near + 0.016, scaled(paving, 1.16))
        sheet.box(0, near + 0.016, 1, near + 0.024, scaled(asphalt, 0.7))
        middle = 0.5 * (far + near)
        if stream.chance(0.5):
            dash = stream.uniform(-0.2, 0.6)
            sheet.box(dash, middle, dash + 0.5, middle + 0.014, paint)
    elif layout == 'zebra':
        bars = stripes(ground.across, stream.uniform(0.5, 0.9), 0.5)
        start = stream.uniform(2.4, 3.6)
        span = band(ground.along, start, start + stream.uniform(1.0, 3.0))
        sheet.cover(top, 0, bars * span, paint, 0.7)
    else:
        side = stream.uniform(-1.2, 1.2)
        line = band(ground.across, side, side + 0.13)
        if stream.chance(0.6):
            line = line * stripes(ground.along, 1.6, 0.6)
        sheet.cover(top, 0, line, paint, 0.8)
        edge = side + stream.choice((-1.7, 1.5))
        wide = band(ground.across, min(edge, edge * 6), max(edge, edge * 6))
        sheet.cover(top, 0, wide, paving)
        sheet.cover(top, 0, band(ground.across, edge, edge + 0.1), (190, 188, 182))
    sheet.mottle(horizon, 1, 4.0, stream)
    if horizon > 0.12 and stream.chance(0.4):
        render_parked_car(sheet, horizon + stream.uniform(0.03, 0.08), stream)
    if horizon > 0.12 and stream.chance(0.4):
        x = stream.choice((stream.uniform(0, 0.25), stream.uniform(0.75, 1)))
        if stream.chance(0.5):
            render_tree(sheet, x, horizon + 0.05, stream.uniform(0.25, 0.4), stream)
        else:
            sheet.stroke((x, horizon + 0.06), (x, -0.1), 0.014, (120, 122, 124))
            face = muted(stream.choice(PAINTS[:4]), 0.1)
            sheet.oval(x, horizon * 0.45, 0.035, 0.035, (222, 222, 220))
            sheet.oval(x, horizon * 0.45, 0.027, 0.027, face)


def _mall(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    wall = varied((186, 180, 170), stream, 18)
    if ground.top:
        sheet.fade(0, horizon, scaled(wall, 1.1), wall)
        left = stream.uniform(-0.5, 0.0)
        while left < 1:
            right = left + stream.uniform(0.6, 1.0)
            render_shop_window(sheet, left, right - 0.1, horizon - 0.012, stream)
            left = right
        if stream.chance(0.4):
            x = stream.choice((stream.uniform(-0.1, 0.15), stream.uniform(0.75, 1.0)))
            stone = varied((200, 196, 188), stream, 14)
            sheet.box(x, 0, x + 0.2, horizon + 0.02, stone)
            sheet.box(x, 0, x + 0.05, horizon + 0.02, scaled(stone, 0.85))
            sheet.box(x + 0.14, 0, x + 0.17, horizon + 0.02, scaled(stone, 1.12))
    tile = varied((196, 190, 178), stream, 16)
    top = ground.top
    sheet.fade(horizon, 1, scaled(tile, 0.97), scaled(tile, 1.05))
    size = stream.uniform(0.5, 0.9)
    if stream.chance(0.35):
        dark = np.floor(ground.across / np.float32(size)) + np.floor(
            ground.along / np.float32(size)
        )
        dark -= 2 * np.floor(dark * np.float32(0.5))
        sheet.cover(top, 0, dark, scaled(tile, 0.86))
    lines = joints(ground, size, 0.05)
    sheet.cover(top, 0, lines, scaled(tile, 0.8), 0.7)
    deep = min(top, sheet.height - top)
    if deep:
        # a shiny floor mirrors the wall, less so towards the camera
        share = np.float32(0.45) * (1 - sheet.rows[:deep] / np.float32(deep))
        part = sheet.pixels[top : top + deep]
        mirror = sheet.pixels[top - deep : top][::-1]
        part += (mirror - part) * share[:, None, None]
    for _ in range(2):
        sheet.oval(
            stream.uniform(0, 1),
            horizon + (1 - horizon) * stream.uniform(0.2, 0.9),
            0.07,
            0.1,
            (244, 238, 224),
            0.3,
            8,
        )
    sheet.mottle(horizon, 1, 1.5, stream)


def _park(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    line = 0.0
    if ground.top:
        sky = varied((186, 200, 212), stream, 16)
        sheet.fade(0, horizon, sky, scaled(sky, 1.1))
        far = varied(muted(stream.choice(LEAVES), 0.4), stream, 10)
        far = scaled(far, 1.25)
        line = horizon * stream.uniform(0.3, 0.7)
        sheet.box(0, line, 1, horizon, far)
        for step in range(5):
            reach = stream.uniform(0.06, 0.13)
            x = (step + stream.uniform(0, 1)) / 5
            sheet.oval(x, line, reach, reach, varied(far, stream, 7), soft=3)
    grass = varied((116, 132, 84), stream, 16)
    sheet.fade(horizon, 1, scaled(grass, 1.08), scaled(grass, 0.92))
    sheet.mottle(line, 1, 7.0, stream)
    gravel = varied((178, 166, 144), stream, 14)
    top = ground.top
    kind = stream.choice(('along', 'along', 'across', 'none'))
    if kind == 'along':
        side = stream.uniform(-1.1, 0.3)
        bend = stream.uniform(-0.25, 0.25)
        near = ground.along - np.float32(2)
        place = ground.across - np.float32(bend) * near * near * np.float32(0.3)
        path = band(place, side, side + stream.uniform(0.8, 1.8))
        sheet.cover(top, 0, path, gravel, 0.9)
    elif kind == 'across':
        start = stream.uniform(2.2, 3.2)
        path = band(ground.along, start, start + stream.uniform(0.8, 1.6))
        sheet.cover(top, 0, path * np.ones_like(ground.across), gravel, 0.9)
    if not ground.top:
        for _ in range(stream.integer(1, 4)):
            shade = scaled(grass, 0.7)
            x, y = stream.uniform(0, 1), stream.uniform(0, 1)
            sheet.oval(x, y, 0.12, 0.08, shade, 0.4, 6)
        return
    for _ in range(stream.integer(0, 2)):
        x = stream.choice((stream.uniform(-0.05, 0.3), stream.uniform(0.7, 1.05)))
        foot = horizon + stream.uniform(0.0, 0.1)
        render_tree(sheet, x, foot, stream.uniform(0.3, 0.5), stream)
    for _ in range(stream.integer(2, 4)):
        bush = varied(muted(stream.choice(LEAVES), 0.2), stream, 14)
        x, reach = stream.uniform(0, 1), stream.uniform(0.05, 0.1)
        foot = horizon + stream.uniform(-0.02, 0.04)
        sheet.oval(x, foot, reach * 1.5, reach, bush, soft=2.5)
        if stream.chance(0.4):
            bloom = varied(muted(stream.choice(PAINTS[:4]), 0.2), stream, 16)
            sheet.oval(x - 0.05, foot - 0.4 * reach, 0.012, 0.012, bloom)
            sheet.oval(x + 0.07, foot, 0.012, 0.012, bloom)


def _plaza(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    if ground.top:
        sky = varied((196, 202, 208), stream, 16)
        sheet.fade(0, horizon, sky, scaled(sky, 1.1))
        left = stream.uniform(-0.4, 0.0)
        while left < 1:
            right = left + stream.uniform(0.3, 0.7)
            stone = varied((166, 158, 148), stream, 18)
            roof = horizon * stream.uniform(0.1, 0.5)
            sheet.box(left, roof, right, horizon, stone)
            x = left + 0.06
            while x + 0.05 < right:
                pane = scaled(stone, 0.72)
                sheet.box(x, roof + 0.03, x + 0.06, horizon - 0.03, pane, 0.6)
                x += 0.13
            left = right
    stone = varied((188, 182, 172), stream, 16)
    sheet.fade(horizon, 1, scaled(stone, 1.04), scaled(stone, 0.94))
    size = stream.uniform(0.7, 1.3)
    lines = joints(ground, size, 0.04)
    sheet.cover(ground.top, 0, lines, scaled(stone, 0.78), 0.7)
    inlay = varied(muted(stream.choice(PAINTS), 0.6), stream, 12)
    start = stream.uniform(2.3, 3.5)
    sheet.cover(
        ground.top,
        0,
        band(ground.along, start, start + 0.4) * np.ones_like(ground.across),
        inlay,
        0.5,
    )
    sheet.mottle(horizon, 1, 3.0, stream)
    if horizon > 0.1 and stream.chance(0.6):
        cloth = varied(muted(stream.choice(PAINTS), 0.15), stream, 10)
        x = stream.choice((stream.uniform(0, 0.25), stream.uniform(0.75, 1)))
        sheet.stroke((x, horizon + 0.04), (x, horizon - 0.16), 0.012, (110, 108, 106))
        sheet.oval(x, horizon - 0.15, 0.11, 0.045, cloth)


def _corridor(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    wall = varied((190, 190, 184), stream, 18)
    if ground.top:
        sheet.fade(0, horizon, scaled(wall, 1.08), scaled(wall, 0.94))
        stripe = varied(muted(stream.choice(PAINTS), 0.3), stream, 12)
        y = horizon * stream.uniform(0.55, 0.75)
        sheet.box(0, y, 1, y + 0.03, stripe)
        for _ in range(stream.integer(1, 2)):
            x = stream.uniform(-0.1, 0.9)
            door = varied((136, 116, 96), stream, 22)
            sheet.box(x - 0.03, horizon * 0.1, x + 0.33, horizon, scaled(wall, 0.75))
            sheet.box(x, horizon * 0.13, x + 0.3, horizon, door)
            pane = scaled(wall, 1.15)
            sheet.box(x + 0.1, horizon * 0.2, x + 0.2, horizon * 0.45, pane)
        sheet.box(0, horizon - 0.025, 1, horizon, scaled(wall, 0.6))
    floor = varied((150, 148, 144), stream, 20)
    sheet.fade(horizon, 1, floor, scaled(floor, 1.08))
    for _ in range(2):
        side = stream.uniform(-1.5, 1.5)
        shine = band(ground.across, side, side + 0.3)
        sheet.cover(ground.top, 0, shine, (236, 236, 230), 0.3)
    edge = stream.choice((-1.4, 1.2))
    border = band(ground.across, edge, edge + 0.2)
    sheet.cover(ground.top, 0, border, scaled(floor, 0.6), 0.8)
    sheet.mottle(horizon, 1, 2.0, stream)


def _platform(sheet: Sheet, horizon: float, stream: RandomStream) -> None:
    ground = lay_ground(sheet, horizon, stream)
    floor = varied((142, 140, 138), stream, 16)
    if ground.top:
        body = varied(muted(stream.choice(PAINTS[3:]), 0.5), stream, 14)
        sheet.fade(0, horizon, scaled(body, 1.1), scaled(body, 0.85))
        glass = varied((74, 84, 94), stream, 12)
        x = stream.uniform(-0.4, 0.0)
        while x < 1:
            sheet.box(x, horizon * 0.2, x + 0.36, horizon * 0.55, glass)
            x += 0.46
        stripe = varied(muted(stream.choice(PAINTS[:4]), 0.15), stream, 12)
        y = horizon * stream.uniform(0.62, 0.75)
        sheet.box(0, y, 1, y + 0.04, stripe)
        if stream.chance(0.5):
            x = stream.uniform(0, 0.8)
            sheet.box(x, horizon * 0.1, x + 0.26, horizon - 0.03, scaled(body, 0.8))
            sheet.box(x + 0.03, horizon * 0.2, x + 0.23, horizon * 0.6, glass)
        sheet.box(0, horizon - 0.035, 1, horizon, (52, 52, 54))
    sheet.fade(horizon, 1, scaled(floor, 1.05), scaled(floor, 0.95))
    size = stream.uniform(0.6, 1.0)
    lines = joints(ground, size, 0.05)
    sheet.cover(ground.top, 0, lines, scaled(floor, 0.84), 0.7)
    warn = varied((204, 178, 84), stream, 14)
    y = horizon + (1 - horizon) * stream.uniform(0.06, 0.2)
    sheet.box(0, y, 1, y + 0.04, warn, 0.85)
    sheet.mottle(horizon, 1, 3.0, stream)


_SCENES: dict[str, Callable[[Sheet, float, RandomStream], None]] = {
    'street': _street,
    'mall': _mall,
    'park': _park,
    'plaza': _plaza,
    'corridor': _corridor,
    'platform': _platform,
}
