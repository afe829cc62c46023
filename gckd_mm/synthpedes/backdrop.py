"""What stands at the end of the ground: house fronts, shop windows, cars, trees."""

from __future__ import annotations

from gckd_mm.synthpedes.colours import LEAVES, PAINTS, muted, scaled, varied
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.sheet import Sheet


def render_tree(
    sheet: Sheet, x: float, foot: float, size: float, stream: RandomStream
) -> None:
    """Render a tree of a height, down to its foot."""
    bark = varied((92, 80, 68), stream, 12)
    leaf = varied(muted(stream.choice(LEAVES), 0.25), stream, 14)
    crown = foot - size
    sheet.stroke((x, foot), (x, crown), 0.03 + 0.03 * size, bark)
    for _ in range(3):
        reach = size * stream.uniform(0.25, 0.36)
        sheet.oval(
            x + stream.uniform(-0.2, 0.2) * size * 2,
            crown + stream.uniform(-0.25, 0.15) * size,
            reach,
            reach * 0.9,
            varied(leaf, stream, 9),
            soft=3,
        )


def render_parked_car(sheet: Sheet, foot: float, stream: RandomStream) -> None:
    """Render a car seen from its side."""
    paint = varied(muted(stream.choice(PAINTS), 0.3), stream, 10)
    left = stream.uniform(-0.5, 0.7)
    right = left + stream.uniform(0.8, 1.2)
    tall = stream.uniform(0.12, 0.16)
    cabin = left + 0.2 * (right - left), right - 0.15 * (right - left)
    sheet.box(left, foot - 0.03, right, foot + 0.012, (46, 46, 48), 0.6)
    sheet.box(cabin[0], foot - tall, cabin[1], foot - 0.5 * tall, scaled(paint, 0.9))
    glass = varied((92, 104, 114), stream, 10)
    middle = 0.5 * (cabin[0] + cabin[1])
    sheet.box(cabin[0] + 0.05, foot - 0.93 * tall, middle, foot - 0.58 * tall, glass)
    sheet.box(
        middle + 0.03, foot - 0.93 * tall, cabin[1] - 0.05, foot - 0.58 * tall, glass
    )
    sheet.fade(
        foot - 0.58 * tall,
        foot - 0.01,
        scaled(paint, 1.08),
        scaled(paint, 0.75),
        left,
        right,
    )
    for wheel in (0.2, 0.8):
        x = left + wheel * (right - left)
        sheet.oval(x, foot - 0.01, 0.027, 0.027, (42, 42, 44))
        sheet.oval(x, foot - 0.01, 0.012, 0.012, (140, 140, 142))


def render_house_fronts(sheet: Sheet, foot: float, stream: RandomStream) -> None:
    """Render a row of houses, some with a shop, down to their feet."""
    left = stream.uniform(-0.6, 0.0)
    while left < 1:
        right = left + stream.uniform(0.5, 1.1)
        stone = varied(
            stream.choice(
                (
                    (168, 156, 142),
                    (150, 128, 112),
                    (178, 172, 160),
                    (134, 134, 136),
                    (160, 146, 120),
                )
            ),
            stream,
            16,
        )
        sheet.fade(0, foot, scaled(stone, 1.06), scaled(stone, 0.86), left, right)
        pane = varied((86, 94, 104), stream, 18)
        frame = scaled(stone, 1.14)
        shop = stream.chance(0.55)
        storey = stream.uniform(0.16, 0.22)
        pitch = stream.uniform(0.24, 0.34)
        sill = foot - (0.25 if shop else 0.1)
        while sill > 0.03:
            x = left + 0.08
            while x + 0.14 < right:
                sheet.box(x - 0.02, sill - 0.12, x + 0.16, sill + 0.008, frame)
                sheet.box(x, sill - 0.11, x + 0.14, sill, pane)
                x += pitch
            sill -= storey
        if shop:
            sign = varied(muted(stream.choice(PAINTS), 0.3), stream, 12)
            sheet.box(left, foot - 0.23, right, foot - 0.185, sign)
            glass = varied((120, 122, 118), stream, 20)
            sheet.box(left + 0.06, foot - 0.18, right - 0.06, foot - 0.03, glass)
            door = stream.uniform(left + 0.1, right - 0.25)
            sheet.box(door, foot - 0.17, door + 0.16, foot, scaled(glass, 0.7))
        else:
            door = stream.uniform(left + 0.05, right - 0.2)
            wood = varied((98, 76, 62), stream, 16)
            sheet.box(door, foot - 0.17, door + 0.15, foot, wood)
        left = right


def render_shop_window(
    sheet: Sheet, left: float, right: float, foot: float, stream: RandomStream
) -> None:
    """Render a lit window with wares, a shelf and a sign above it."""
    glow = varied((206, 184, 150), stream, 18)
    top = foot * stream.uniform(0.12, 0.3)
    sheet.fade(top, foot, scaled(glow, 1.12), scaled(glow, 0.84), left, right)
    for _ in range(stream.integer(3, 5)):
        x = stream.uniform(left + 0.05, right - 0.05)
        tall = stream.uniform(0.1, 0.3) * foot
        ware = varied(muted(stream.choice(PAINTS), 0.35), stream, 16)
        sheet.box(x - 0.06, foot - 0.05 - tall, x + 0.06, foot - 0.04, ware, 0.75)
    shelf = foot * stream.uniform(0.5, 0.7)
    sheet.box(left, shelf, right, shelf + 0.012, scaled(glow, 0.7))
    for _ in range(2):
        lamp = stream.uniform(left + 0.1, right - 0.1)
        sheet.oval(lamp, top + 0.02, 0.025, 0.02, (255, 244, 216), 0.9, 3)
    sign = varied(muted(stream.choice(PAINTS), 0.2), stream, 12)
    sheet.box(left, top - 0.07, right, top, sign)
    sheet.box(left + 0.15, top - 0.045, right - 0.15, top - 0.025, (232, 226, 214), 0.8)
