"""What paints the parts of a person: shapes in metres, and how they are shaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gckd_mm.synthpedes.body import Body, Joint, Row, Span
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.cloth_pattern import pattern_of
from gckd_mm.synthpedes.shading import FLAT, RGB, Cloth, Shading
from gckd_mm.synthpedes.wardrobe import Person


class Painter:
    """Paints one image of a person.

    Args:
        canvas: Is painted on.
        person: Who, and what is worn.
        body: How they stand.
        seen: What can be seen of them, as ``visible_things`` names it.
        light: Where light comes from, -1 (left) … 1 (right).

    Attributes:
        fabric: Shading of cloth.
        smooth: Shading of skin and what is tight.
        hairy: Shading of hair.
        thing: Shading of what is stiff.
        upper_cloth: Pattern of the upper garment, if any.
        lower_cloth: Pattern of the lower garment, if any.
    """

    def __init__(
        self,
        canvas: Canvas,
        person: Person,
        body: Body,
        seen: frozenset[str],
        light: float,
    ) -> None:
        self.canvas, self.person, self.body = canvas, person, body
        self.seen, self.light = seen, light
        self.scale = body.scale
        grain = sum(person.upper.colour.rgb)
        self.fabric = Shading(1.0, light, 0.38, 0.07, grain)
        self.smooth = Shading(0.8, light, 0.3)
        self.hairy = Shading(0.9, light, 0.3, 0.06, 3)
        self.thing = Shading(0.5, light, 0.42)
        self.upper_cloth = pattern_of(person.upper, self.scale)
        self.lower_cloth = (
            pattern_of(person.lower, self.scale) if person.lower else None
        )

    def limb(
        self,
        joints: Sequence[Joint],
        radii: Sequence[float],
        colour: RGB,
        shading: Shading = FLAT,
        cloth: Cloth | None = None,
    ) -> None:
        """Paint a chain of tapered capsules."""
        self.canvas.limb(
            [self.body.at(*joint) for joint in joints],
            [radius * self.scale for radius in radii],
            colour,
            cloth=cloth,
            shading=shading,
        )

    def ball(
        self,
        centre: Joint,
        radii: tuple[float, float],
        colour: RGB,
        shading: Shading = FLAT,
    ) -> None:
        """Paint an ellipse of the same width from everywhere."""
        self.canvas.ellipse(
            self.body.at(*centre),
            (radii[0] * self.scale, radii[1] * self.scale),
            colour,
            shading=shading,
        )

    def drape(
        self,
        rows: list[Row],
        colour: RGB,
        shading: Shading,
        cloth: Cloth | None = None,
        rounding: float = 0.02,
        hem: float = 0.15,
    ) -> None:
        """Paint what hangs around the body: from above its hem is a curve.

        Args:
            rows: The outline.
            colour: RGB in 0 … 255.
            shading: How to shade.
            cloth: The pattern, if any.
            rounding: Radius of the corners. Defaults to 0.02.
            hem: Half the depth of the hem. Defaults to 0.15.
        """
        self.canvas.column(
            rows,
            colour,
            rounding=rounding * self.scale,
            sag=hem * (self.body.sin_pitch * 0.9 + 0.06) * self.scale,
            cloth=cloth,
            shading=shading,
        )

    def patch(
        self,
        top: float,
        bottom: float,
        spans: tuple[Span, Span],
        colour: RGB,
        alpha: float = 1.0,
        rounding: float = 0.0,
        shading: Shading = FLAT,
    ) -> None:
        """Paint the seen part of an area on the trunk, given as to ``trunk_patch``."""
        rows = self.body.trunk_patch(top, bottom, spans)
        if rows:
            self.canvas.column(
                rows,
                colour,
                rounding=rounding * self.scale,
                alpha=alpha,
                shading=shading,
            )


#: how near to the camera something is, and what paints it
Layer = tuple[float, Callable[[Painter], None]]
