"""An image and the smooth shapes that are painted on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.shading import FLAT, RGB, Cloth, Shading
from gckd_mm.synthpedes.smooth_noise import smooth_noise

Point = tuple[float, float]


class Canvas:
    """An image that antialiased shapes are painted on, far ones first.

    A shape is a signed distance (negative inside), evaluated within its bounding box;
    the pixel at column i, row j has its centre at (i + 0.5, j + 0.5). What lies outside
    the image is left out. Every shape takes its ``colour`` (RGB in 0 … 255), ``alpha``
    (its opacity), ``cloth`` (its pattern; across and along run from the start of a
    limb, the centre of an ellipse, the top of the middle of what has rows) and
    ``shading``.

    Args:
        height: In pixels.
        width: In pixels.
        colour: Of the empty image, RGB in 0 … 255. Defaults to white.

    Attributes:
        pixels: ``(height, width, 3)``, float32, RGB in 0 … 255.
    """

    def __init__(
        self, height: int, width: int, colour: RGB = (255.0, 255.0, 255.0)
    ) -> None:
        self.pixels = np.empty((height, width, 3), np.float32)
        self.pixels[:] = colour

    def limb(
        self,
        joints: Sequence[Point],
        radii: Sequence[float],
        colour: RGB,
        *,
        alpha: float = 1.0,
        cloth: Cloth | None = None,
        shading: Shading = FLAT,
    ) -> None:
        """Paint a chain of tapered capsules without seams, by its joints and radii."""
        window = self._window(
            min(x - r for (x, _), r in zip(joints, radii, strict=True)),
            min(y - r for (_, y), r in zip(joints, radii, strict=True)),
            max(x + r for (x, _), r in zip(joints, radii, strict=True)),
            max(y + r for (_, y), r in zip(joints, radii, strict=True)),
        )
        if window is None:
            return
        parts: list[tuple[np.ndarray, ...]] = []
        walked = 0.0
        light_x, light_y = shading.light, -0.35
        for i in range(len(joints) - 1):
            x, y = joints[i][0] - window.left, joints[i][1] - window.top
            run, rise = joints[i + 1][0] - joints[i][0], joints[i + 1][1] - joints[i][1]
            length = max(math.sqrt(run * run + rise * rise), 1e-6)
            run, rise = run / length, rise / length
            dx, dy = window.x - x, window.y - y
            here_along = dx * run + dy * rise
            here_across = dx * rise - dy * run
            place = np.minimum(np.maximum(here_along, 0.0), length)
            gap = here_along - place
            reach = np.sqrt(here_across * here_across + gap * gap)
            taper = (radii[i + 1] - radii[i]) / length
            radius = place * taper + radii[i]
            here = reach - radius
            here_share = here_across / radius
            here_lit = here_share * (rise * light_x - run * light_y)
            here_along = here_along + walked
            walked += length
            parts.append((here, here_share, here_lit, here_across, here_along))
        distance, share, lit, across, along = parts[0]
        for part in parts[1:]:
            nearer = part[0] < distance
            distance = np.minimum(distance, part[0])
            share = np.where(nearer, part[1], share)
            lit = np.where(nearer, part[2], lit)
            if cloth is not None:
                across = np.where(nearer, part[3], across)
                along = np.where(nearer, part[4], along)
        self._paint(
            window, distance, share, lit, across, along, colour, alpha, cloth, shading
        )

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        colour: RGB,
        *,
        alpha: float = 1.0,
        cloth: Cloth | None = None,
        shading: Shading = FLAT,
    ) -> None:
        """Paint an ellipse, by half its width and half its height."""
        wide, high = max(radii[0], 0.05), max(radii[1], 0.05)
        x, y = centre
        window = self._window(x - wide, y - high, x + wide, y + high)
        if window is None:
            return
        # just off the centre, where the distance below would be 0 / 0
        across, along = window.x - (x - window.left) + 1e-3, window.y - (y - window.top)
        p, q = across / wide, along / high
        squared = p * p + q * q
        size = np.sqrt(squared)
        p2, q2 = p / wide, q / high
        slope = np.sqrt(p2 * p2 + q2 * q2)
        distance = size * (size - 1.0) / np.maximum(slope, 1e-6)
        lit = p * shading.light - q * 0.35
        self._paint(
            window, distance, size, lit, across, along, colour, alpha, cloth, shading
        )

    def rectangle(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: RGB,
        *,
        rounding: float = 0.0,
        alpha: float = 1.0,
        cloth: Cloth | None = None,
        shading: Shading = FLAT,
    ) -> None:
        """Paint an upright rectangle; ``rounding`` is the radius of its corners."""
        rows = ((top, left, right), (bottom, left, right))
        self.column(
            rows, colour, rounding=rounding, alpha=alpha, cloth=cloth, shading=shading
        )

    def column(
        self,
        rows: Sequence[tuple[float, float, float]],
        colour: RGB,
        *,
        rounding: float = 0.0,
        sag: float = 0.0,
        alpha: float = 1.0,
        cloth: Cloth | None = None,
        shading: Shading = FLAT,
    ) -> None:
        """Paint a shape that is given by its width from row to row, such as a trunk.

        The rows are (y, left, right) from top to bottom, with straight lines between.
        ``rounding`` is the radius of the four corners, within the shape; ``sag`` is how
        far the middle of each row hangs below its ends.
        """
        top, bottom = rows[0][0], rows[-1][0]
        window = self._window(
            min(row[1] for row in rows),
            top + min(sag, 0.0),
            max(row[2] for row in rows),
            bottom + max(sag, 0.0),
        )
        if window is None or bottom <= top:
            return
        top, bottom = top - window.top, bottom - window.top
        edges = _edges(rows, window)
        middle, half, slope = edges[0], edges[1], edges[2]
        across = window.x - middle
        share = across / half
        level = window.y
        if sag:
            level = level + (np.minimum(share * share, 1.0) - 1.0) * sag
        rounding = min(rounding, (bottom - top) / 2)
        out = (np.abs(across) - half) * slope + rounding
        beyond = np.abs(level - (top + bottom) / 2) - ((bottom - top) / 2 - rounding)
        if rounding:
            far, high = np.maximum(out, 0.0), np.maximum(beyond, 0.0)
            corner = np.sqrt(far * far + high * high)
            distance = np.minimum(np.maximum(out, beyond), 0.0) + corner - rounding
        else:
            distance = np.maximum(out, beyond)
        lit = share * shading.light
        along = level - top
        self._paint(
            window, distance, share, lit, across, along, colour, alpha, cloth, shading
        )

    def _window(
        self, left: float, top: float, right: float, bottom: float
    ) -> _Window | None:
        """Return the pixels of a bounding box, or None if all are off the image."""
        height, width = self.pixels.shape[:2]
        first_x, first_y = math.floor(left) - 1, math.floor(top) - 1
        start_x, start_y = max(first_x, 0), max(first_y, 0)
        stop_x, stop_y = (
            min(math.ceil(right) + 1, width),
            min(math.ceil(bottom) + 1, height),
        )
        if start_x >= stop_x or start_y >= stop_y:
            return None
        # coordinates count from the box, so that a moved shape rounds alike
        x = np.arange(start_x - first_x, stop_x - first_x, dtype=np.float32) + 0.5
        y = np.arange(start_y - first_y, stop_y - first_y, dtype=np.float32) + 0.5
        box = self.pixels[start_y:stop_y, start_x:stop_x]
        return _Window(first_x, first_y, x[None, :], y[:, None], box)

    @staticmethod
    def _paint(
        window: _Window,
        distance: np.ndarray,
        share: np.ndarray,
        lit: np.ndarray,
        across: np.ndarray,
        along: np.ndarray,
        colour: RGB,
        alpha: float,
        cloth: Cloth | None,
        shading: Shading,
    ) -> None:
        """Blend a shape into the pixels of its window.

        Args:
            window: The pixels.
            distance: To the edge, negative inside.
            share: How far out a pixel is, 0 in the middle to 1 at the rim.
            lit: How much a pixel is turned to the light, -1 … 1.
            across: In pixels, for the cloth.
            along: In pixels, for the cloth.
            colour: RGB.
            alpha: Opacity.
            cloth: The pattern, if any.
            shading: How to shade.
        """
        cover = np.minimum(np.maximum(0.5 - distance, 0.0), 1.0)
        if alpha < 1:
            cover = cover * alpha
        cover = cover[:, :, None]
        paint = np.array(colour, np.float32)
        if cloth is not None:
            weave = cloth.weave(across, along)[:, :, None]
            paint = paint + weave * (np.array(cloth.second, np.float32) - paint)
        bright = None
        if shading.roundness:
            bright = 1.05 - share * share * (0.3 * shading.roundness)
            bright = bright + lit * (0.17 * shading.roundness)
        if shading.outline:
            line = np.minimum(np.maximum(1.0 + distance * 0.8, 0.0), 1.0)
            line = 1.0 - line * shading.outline
            bright = line if bright is None else bright * line
        if shading.folds:
            rows = window.y.astype(np.intp) + shading.grain * 37
            columns = window.x.astype(np.intp) + shading.grain * 11
            crease = _CREASES[rows % len(_CREASES), columns % len(_CREASES)]
            crease = 1.0 + crease * shading.folds
            bright = crease if bright is None else bright * crease
        if bright is not None:
            paint = np.minimum(paint * bright[:, :, None], 255.0)
        box = window.box
        box += cover * (paint - box)


class _Window(NamedTuple):
    """The pixels of a bounding box and their coordinates from its corner."""

    left: int
    top: int
    x: np.ndarray  # (1, W)
    y: np.ndarray  # (H, 1)
    box: np.ndarray  # (H, W, 3), a view of the image


def _edges(
    rows: Sequence[tuple[float, float, float]], window: _Window
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return middle, half width and cosine of the edge's slope in each row of pixels.

    Returns:
        Three arrays ``(H, 1)``.
    """
    table = []
    place, last = 0, len(rows) - 2
    first = window.top + float(window.y[0, 0])
    for i in range(len(window.y)):
        y = first + i
        while place < last and y > rows[place + 1][0]:
            place += 1
        y0, left0, right0 = rows[place]
        y1, left1, right1 = rows[place + 1]
        height = max(y1 - y0, 1e-6)
        share = min(max((y - y0) / height, 0.0), 1.0)
        left, right = (
            left0 + (left1 - left0) * share,
            right0 + (right1 - right0) * share,
        )
        slant = ((right1 - left1) - (right0 - left0)) / 2 / height
        table.append(
            (
                (left + right) / 2 - window.left,
                max((right - left) / 2, 1e-3),
                1.0 / math.sqrt(1.0 + slant * slant),
            )
        )
    columns = np.array(table, np.float32)
    return columns[:, :1], columns[:, 1:2], columns[:, 2:]


_CREASES = smooth_noise(RandomStream('creases of cloth'), 256, 256, (26, 50))
