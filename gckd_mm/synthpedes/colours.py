"""Colours of places, and how one colour is made from another."""

from __future__ import annotations

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.shading import RGB

#: clothing for a passer-by's shoulder, paint for cars, signs and awnings
PAINTS: tuple[RGB, ...] = (
    (176, 60, 54),
    (52, 84, 150),
    (64, 120, 84),
    (206, 170, 72),
    (214, 214, 210),
    (58, 60, 66),
    (132, 136, 142),
    (196, 116, 60),
    (110, 76, 128),
)
#: of trees, bushes and pot plants
LEAVES: tuple[RGB, ...] = (
    (84, 108, 66),
    (70, 96, 64),
    (108, 122, 70),
    (96, 112, 84),
)


def varied(colour: RGB, stream: RandomStream, spread: float = 18.0) -> RGB:
    """Return a colour like another one: lighter or darker, and a little tinted."""
    light = stream.uniform(-spread, spread)
    red, green, blue = (
        min(max(part + light + stream.uniform(-spread, spread) / 3, 0.0), 255.0)
        for part in colour
    )
    return red, green, blue


def scaled(colour: RGB, factor: float) -> RGB:
    """Return a colour made lighter (a factor above 1) or darker."""
    red, green, blue = (min(part * factor, 255.0) for part in colour)
    return red, green, blue


def muted(colour: RGB, share: float) -> RGB:
    """Return a colour moved towards its grey, as haze and distance do."""
    red, green, blue = colour
    grey = (red + green + blue) / 3
    red, green, blue = (part + (grey - part) * share for part in colour)
    return red, green, blue


def mixed(first: RGB, second: RGB, share: float) -> RGB:
    """Return a colour on the way from one to another."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def darker(colour: RGB, share: float) -> RGB:
    """Return a colour on the way to black."""
    return mixed(colour, (0, 0, 0), share)


def paler(colour: RGB, share: float) -> RGB:
    """Return a colour on the way to white."""
    return mixed(colour, (255, 255, 255), share)
