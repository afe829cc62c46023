"""An image that the places of SynthPedes are painted on, in shares of its size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.shading import RGB


class Sheet:
    """An image to render on in shares: x of the width, y and radii of the height.

    It is quicker than a :class:`~gckd_mm.synthpedes.canvas.Canvas` and knows
    neither outlines nor cloth: good enough for what is out of focus.

    Args:
        pixels: ``(H, W, 3)``, float32, RGB in 0 … 255; they are painted on.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.rows = np.arange(self.height, dtype=np.float32) + np.float32(0.5)
        self.columns = np.arange(self.width, dtype=np.float32) + np.float32(0.5)

    def row(self, y: float) -> int:
        """Return the row of pixels that begins at a share of the height."""
        return min(max(round(y * self.height), 0), self.height)

    def column(self, x: float) -> int:
        """Return the column of pixels that begins at a share of the width."""
        return min(max(round(x * self.width), 0), self.width)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: RGB,
        alpha: float = 1.0,
    ) -> None:
        """Fill a box of whole pixels."""
        part = self.pixels[
            self.row(top) : self.row(bottom), self.column(left) : self.column(right)
        ]
        if alpha < 1:
            part *= np.float32(1 - alpha)
            part += np.array(colour, np.float32) * np.float32(alpha)
        else:
            part[:] = colour

    def fade(
        self,
        top: float,
        bottom: float,
        first: RGB,
        last: RGB,
        left: float = 0.0,
        right: float = 1.0,
    ) -> None:
        """Fill a band that goes from one colour to another, downwards."""
        start, end = self.row(top), self.row(bottom)
        count = max(end - start, 1)
        share = (self.rows[: end - start] / np.float32(count))[:, None, None]
        begin = np.array(first, np.float32)
        step = np.array(last, np.float32) - begin
        part = self.pixels[start:end, self.column(left) : self.column(right)]
        part[:] = begin + share * step

    def oval(
        self,
        x: float,
        y: float,
        across: float,
        down: float,
        colour: RGB,
        alpha: float = 1.0,
        soft: float = 1.0,
    ) -> None:
        """Fill an oval whose rim fades over ``soft`` pixels."""
        centre_x, centre_y = x * self.width, y * self.height
        radius_x, radius_y = across * self.height, down * self.height
        window = self._window(
            centre_x - radius_x - soft,
            centre_y - radius_y - soft,
            centre_x + radius_x + soft,
            centre_y + radius_y + soft,
        )
        if window is None:
            return
        rows = (window.rows - np.float32(centre_y)) / np.float32(radius_y)
        columns = (window.columns - np.float32(centre_x)) / np.float32(radius_x)
        distance = np.sqrt((rows * rows)[:, None] + (columns * columns)[None, :])
        slope = np.float32(min(radius_x, radius_y) / soft)
        cover = clipped((np.float32(1) - distance) * slope + np.float32(0.5))
        self.cover(window.top, window.left, cover, colour, alpha)

    def ring(
        self, x: float, y: float, radius: float, thickness: float, colour: RGB
    ) -> None:
        """Render a circle; what it encloses shows through."""
        centre_x, centre_y = x * self.width, y * self.height
        reach, half = radius * self.height, 0.5 * thickness * self.height
        window = self._window(
            centre_x - reach - half - 1,
            centre_y - reach - half - 1,
            centre_x + reach + half + 1,
            centre_y + reach + half + 1,
        )
        if window is None:
            return
        rows = window.rows - np.float32(centre_y)
        columns = window.columns - np.float32(centre_x)
        distance = np.sqrt((rows * rows)[:, None] + (columns * columns)[None, :])
        off = np.abs(distance - np.float32(reach))
        cover = clipped(np.float32(half + 0.5) - off)
        self.cover(window.top, window.left, cover, colour)

    def stroke(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        thickness: float,
        colour: RGB,
        alpha: float = 1.0,
        taper: float = 0.0,
    ) -> None:
        """Render a straight line with round ends, ``thickness`` in shares of height.

        ``taper`` is the share of the thickness that the start lacks.
        """
        x0, y0 = start[0] * self.width, start[1] * self.height
        x1, y1 = end[0] * self.width, end[1] * self.height
        half = max(0.5 * thickness * self.height, 0.4)
        window = self._window(
            min(x0, x1) - half - 1,
            min(y0, y1) - half - 1,
            max(x0, x1) + half + 1,
            max(y0, y1) + half + 1,
        )
        if window is None:
            return
        run, rise = x1 - x0, y1 - y0
        square = max(run * run + rise * rise, 1e-6)
        rows = (window.rows - np.float32(y0))[:, None]
        columns = (window.columns - np.float32(x0))[None, :]
        along = clipped(
            columns * np.float32(run / square) + rows * np.float32(rise / square)
        )
        off_x = columns - along * np.float32(run)
        off_y = rows - along * np.float32(rise)
        distance = np.sqrt(off_x * off_x + off_y * off_y)
        edge = np.float32(half + 0.5)
        if taper > 0:
            distance += (1 - along) * np.float32(taper * half)
        cover = clipped(edge - distance)
        self.cover(window.top, window.left, cover, colour, alpha)

    def cover(
        self,
        top: int,
        left: int,
        cover: np.ndarray,
        colour: RGB,
        alpha: float = 1.0,
    ) -> None:
        """Blend a colour in where ``cover`` (H, W), 0 to 1, says; from a corner on."""
        rows, columns = cover.shape
        part = self.pixels[top : top + rows, left : left + columns]
        weight = cover * np.float32(alpha) if alpha < 1 else cover
        # a channel at a time: broadcasting over the short last axis is slow
        for channel, level in enumerate(colour):
            plane = part[:, :, channel]
            step = np.float32(level) - plane
            step *= weight
            plane += step

    def mottle(
        self, top: float, bottom: float, strength: float, stream: RandomStream
    ) -> None:
        """Make a band uneven in brightness, in blotches of a few pixels."""
        start, end = self.row(top), self.row(bottom)
        if start >= end:
            return
        coarse = stream.noise((end - start + 3) // 4, (self.width + 3) // 4, 1)
        fine = doubled(coarse)
        fine += stream.noise(*fine.shape) * np.float32(0.5)
        noise = doubled(fine)[: end - start, : self.width]
        self.pixels[start:end] += noise * np.float32(strength)

    def _window(
        self, left: float, top: float, right: float, bottom: float
    ) -> _Window | None:
        """Return the pixels that a shape may touch, or None if it is off the sheet."""
        first_row, last_row = max(int(top), 0), min(int(bottom) + 1, self.height)
        first_column, last_column = max(int(left), 0), min(int(right) + 1, self.width)
        if first_row >= last_row or first_column >= last_column:
            return None
        return _Window(
            first_row,
            first_column,
            self.rows[first_row:last_row],
            self.columns[first_column:last_column],
        )


class _Window(NamedTuple):
    """Some pixels: the first row and column, and where the centres of all lie."""

    top: int
    left: int
    rows: np.ndarray  # (H,)
    columns: np.ndarray  # (W,)


def clipped(share: np.ndarray) -> np.ndarray:
    """Clip to 0 and 1, in place; np.clip takes several times as long on few pixels."""
    np.maximum(share, np.float32(0), out=share)
    np.minimum(share, np.float32(1), out=share)
    return share


def doubled(pixels: np.ndarray) -> np.ndarray:
    """Enlarge (H, W, C) to (2 H, 2 W, C), bilinearly."""
    height, width, channels = pixels.shape
    near = pixels * np.float32(0.75)
    far = pixels * np.float32(0.25)
    tall = np.empty((height, 2, width, channels), np.float32)
    tall[0, 0], tall[-1, 1] = pixels[0], pixels[-1]
    np.add(near[1:], far[:-1], out=tall[1:, 0])
    np.add(near[:-1], far[1:], out=tall[:-1, 1])
    rows = tall.reshape(2 * height, width, channels)
    near = rows * np.float32(0.75)
    far = rows * np.float32(0.25)
    wide = np.empty((2 * height, width, 2, channels), np.float32)
    wide[:, 0, 0], wide[:, -1, 1] = rows[:, 0], rows[:, -1]
    np.add(near[:, 1:], far[:, :-1], out=wide[:, 1:, 0])
    np.add(near[:, :-1], far[:, 1:], out=wide[:, :-1, 1])
    return wide.reshape(2 * height, 2 * width, channels)
