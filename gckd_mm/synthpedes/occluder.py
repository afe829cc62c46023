"""What stands in front of a person in the places of SynthPedes."""

from __future__ import annotations

from collections.abc import Callable

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.colours import LEAVES, PAINTS, muted, scaled, varied
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.shading import RGB
from gckd_mm.synthpedes.sheet import Sheet


def render_occluder(canvas: Canvas, scene: str, stream: RandomStream) -> None:
    """Render something that stands in front of the person, at a side or at the bottom.

    Args:
        canvas: About 8 to 25% of it are overdrawn.
        scene: A name of :data:`~gckd_mm.synthpedes.scene.SCENES`.
        stream: Random numbers of this image.

    Raises:
        InputError: There is no such scene.
    """
    if scene not in _OCCLUDERS:
        raise InputError(
            f'scene: there is no {scene!r}; choose one of {", ".join(_OCCLUDERS)}'
        )
    render = stream.choice(_OCCLUDERS[scene])
    render(Sheet(canvas.pixels), stream)


def _pole(sheet: Sheet, stream: RandomStream) -> None:
    metal = varied((112, 114, 116), stream, 24)
    _post(sheet, _edge(stream, 0.1, 0.3), stream.uniform(0.055, 0.09), -0.1, metal)


def _lamp_post(sheet: Sheet, stream: RandomStream) -> None:
    iron = varied((62, 68, 66), stream, 14)
    x = _edge(stream, 0.1, 0.26)
    thick = stream.uniform(0.05, 0.065)
    _post(sheet, x, thick, -0.1, iron)
    foot = stream.uniform(0.8, 0.88)
    _post(sheet, x, 1.9 * thick, foot, iron)
    sheet.stroke((x - 0.09, foot - 0.02), (x + 0.09, foot - 0.02), 0.025, iron)


def _rail(sheet: Sheet, stream: RandomStream) -> None:
    metal = varied((150, 150, 148), stream, 24)
    top = stream.uniform(0.76, 0.83)
    sheet.box(0, top + 0.03, 1, 0.97, (196, 208, 208), 0.4)
    for x in (stream.uniform(0.0, 0.3), stream.uniform(0.7, 1.0)):
        _post(sheet, x, 0.025, top, metal)
    sheet.box(0, top, 1, top + 0.035, metal)
    sheet.box(0, top, 1, top + 0.01, scaled(metal, 1.3))
    sheet.box(0, 0.97, 1, 1, scaled(metal, 0.8))


def _barrier(sheet: Sheet, stream: RandomStream) -> None:
    board = varied((214, 208, 200), stream, 12)
    band = varied(stream.choice(((176, 64, 54), (196, 128, 60))), stream, 14)
    top = stream.uniform(0.74, 0.84)
    for x in (stream.uniform(0.05, 0.2), stream.uniform(0.8, 0.95)):
        sheet.stroke((x, top - 0.03), (x, 1.1), 0.02, (124, 124, 122))
    step = stream.uniform(0.3, 0.4)
    for y in (top, top + 0.11):
        sheet.box(0, y, 1, y + 0.06, board)
        x = stream.uniform(-0.3, 0.0)
        while x < 1:
            sheet.box(x, y, x + 0.5 * step, y + 0.06, band)
            x += step
        sheet.box(0, y + 0.05, 1, y + 0.06, (40, 40, 40), 0.3)


def _bonnet(sheet: Sheet, stream: RandomStream) -> None:
    paint = varied(muted(stream.choice(PAINTS), 0.2), stream, 12)
    x = stream.uniform(0.15, 0.85)
    top = stream.uniform(0.78, 0.86)
    down = 1.12 - top
    across = stream.uniform(0.38, 0.5)
    sheet.oval(x, 1.12, across, down, paint)
    sheet.oval(x, 1.12, 0.8 * across, 0.84 * down, scaled(paint, 1.12), 0.7, 5)
    sheet.oval(x - 0.15, top + 0.035, 0.12, 0.012, (244, 246, 248), 0.5, 3)
    for side in (-1.3, 1.3):
        sheet.oval(x + side * across, 0.97, 0.035, 0.025, (228, 226, 214))


def _bicycle(sheet: Sheet, stream: RandomStream) -> None:
    """Render the wheels and the frame of a bicycle parked in front."""
    frame = varied(stream.choice(PAINTS), stream, 12)
    x, y = stream.uniform(0.1, 0.4), stream.uniform(0.86, 0.92)
    reach, base = stream.uniform(0.12, 0.14), stream.uniform(0.6, 0.75)
    rubber = (44, 44, 46)
    for hub in (x, x + base):
        sheet.ring(hub, y, reach, 0.022, rubber)
    crank, saddle = (x + 0.45 * base, y + 0.02), (x + 0.32 * base, y - 0.15)
    head = (x + 0.86 * base, y - 0.17)
    for start, end in (
        ((x, y), crank),
        ((x, y), saddle),
        (crank, saddle),
        (crank, head),
        (saddle, head),
        (head, (x + base, y)),
    ):
        sheet.stroke(start, end, 0.022, frame)
    sheet.stroke(
        (saddle[0] - 0.07, y - 0.17), (saddle[0] + 0.07, y - 0.17), 0.03, rubber
    )
    sheet.stroke((head[0] - 0.04, y - 0.21), (head[0] + 0.09, y - 0.2), 0.022, rubber)


def _bench(sheet: Sheet, stream: RandomStream) -> None:
    wood = varied((134, 102, 74), stream, 18)
    iron = (58, 60, 62)
    left = stream.uniform(-0.3, 0.2)
    right = left + stream.uniform(0.85, 1.1)
    top = stream.uniform(0.74, 0.82)
    for x in (left + 0.12, right - 0.12):
        sheet.stroke((x, top), (x, 1.05), 0.024, iron)
    for slat in range(3):
        y = top + 0.055 * slat
        sheet.box(left, y, right, y + 0.04, varied(wood, stream, 6))
        sheet.box(left, y + 0.03, right, y + 0.04, scaled(wood, 0.7))
    sheet.box(left - 0.03, top + 0.18, right + 0.03, top + 0.215, scaled(wood, 1.1))


def _plant(sheet: Sheet, stream: RandomStream) -> None:
    pot = varied(stream.choice(((150, 100, 76), (190, 186, 178), (84, 86, 90))), stream)
    x = _edge(stream, 0.08, 0.25)
    rim = stream.uniform(0.84, 0.89)
    wide = stream.uniform(0.15, 0.19)
    leaf = varied(stream.choice(LEAVES), stream, 14)
    for _ in range(8):
        tip = x + stream.uniform(-0.3, 0.3), rim - stream.uniform(0.12, 0.36)
        green = varied(leaf, stream, 22)
        sheet.stroke((x, rim), tip, 0.055, green, taper=0.6)
    sheet.box(x - wide, rim, x + wide, 1, pot)
    sheet.box(x - wide - 0.02, rim, x + wide + 0.02, rim + 0.03, scaled(pot, 1.12))
    sheet.box(x + 0.4 * wide, rim + 0.03, x + wide, 1, scaled(pot, 0.7), 0.5)


def _bush(sheet: Sheet, stream: RandomStream) -> None:
    leaf = varied(stream.choice(LEAVES), stream, 14)
    x = _edge(stream, 0.1, 0.35)
    top = stream.uniform(0.8, 0.86)
    # the later clumps are lower, lighter and in front
    for layer in range(3):
        for step in (-1, 0, 1):
            reach = stream.uniform(0.08, 0.1)
            green = varied(scaled(leaf, 0.8 + 0.16 * layer), stream, 10)
            sheet.oval(
                x + 0.28 * step + stream.uniform(-0.08, 0.08),
                top + 0.06 * layer + 0.02 * abs(step) + stream.uniform(-0.02, 0.02),
                reach,
                0.85 * reach,
                green,
                soft=2,
            )


def _shoulder(sheet: Sheet, stream: RandomStream) -> None:
    """Render the head, back and arm of someone who walks past, cut by the border."""
    cloth = varied(muted(stream.choice(PAINTS), 0.15), stream, 14)
    hair = varied(
        stream.choice(((46, 38, 34), (86, 64, 48), (120, 112, 104))), stream, 8
    )
    outward = stream.choice((-1.0, 1.0))
    x = 0.5 + outward * stream.uniform(0.52, 0.58)
    top = stream.uniform(0.36, 0.5)
    sheet.stroke((x, top), (x, 1.3), 0.15, cloth)
    inner = x - outward * 0.06
    sheet.stroke((inner, top + 0.06), (inner - outward * 0.05, 1.1), 0.13, cloth)
    fold = inner - outward * 0.02
    sheet.stroke((fold, top + 0.1), (fold, 1.1), 0.014, scaled(cloth, 0.78))
    sheet.oval(x, top - 0.13, 0.075, 0.085, hair)


def _post(sheet: Sheet, x: float, thick: float, top: float, colour: RGB) -> None:
    """Render an upright round bar, lit from the left, down to the lower border."""
    shift = thick * sheet.height / sheet.width
    sheet.stroke((x, top), (x, 1.1), thick, colour)
    dark, light = scaled(colour, 0.72), scaled(colour, 1.3)
    sheet.stroke((x + 0.3 * shift, top), (x + 0.3 * shift, 1.1), 0.35 * thick, dark)
    sheet.stroke((x - 0.25 * shift, top), (x - 0.25 * shift, 1.1), 0.2 * thick, light)


def _edge(stream: RandomStream, low: float, high: float) -> float:
    """Return an x that far from the left or the right border."""
    inset = stream.uniform(low, high)
    return inset if stream.chance(0.5) else 1.0 - inset


_OCCLUDERS: dict[str, tuple[Callable[[Sheet, RandomStream], None], ...]] = {
    'street': (_pole, _bonnet, _bicycle, _barrier),
    'mall': (_rail, _plant, _shoulder),
    'park': (_bush, _bench, _lamp_post),
    'plaza': (_barrier, _plant, _shoulder),
    'corridor': (_plant, _shoulder),
    'platform': (_rail, _pole, _shoulder),
}
