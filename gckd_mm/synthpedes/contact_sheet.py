"""Contact sheets: images and captions of some datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from gckd_mm.visualization.rank_lists import INK, PAPER

_HEIGHT = 200  # of every crop
_MARGIN, _GAP, _LINE, _HEADING, _INDENT = 20, 8, 18, 26, 20


class ContactRow(NamedTuple):
    """Some crops of a dataset and captions of a few of them."""

    name: str
    crops: Sequence[np.ndarray]  # RGB, uint8, shape (H, W, 3), of any size
    captions: Sequence[tuple[int, str]] = ()  # index of the crop, what is said of it


def render_contact_sheet(rows: Sequence[ContactRow]) -> Image.Image:
    """Render a row of crops for each dataset: its name above, captions below.

    A letter under a crop and before a caption tells which belong together. All crops
    are enlarged to the same height.
    """
    if not rows:
        raise ValueError('there are no rows to render')
    for row in rows:
        if not row.crops:
            raise ValueError(f'row {row.name!r} has no crops to render')
        for index, _ in row.captions:
            if not 0 <= index < len(row.crops):
                raise ValueError(
                    f'row {row.name!r} has {len(row.crops)} crops, but a caption of '
                    f'crop {index}'
                )
    crops = [[_enlarge(crop) for crop in row.crops] for row in rows]
    inner = max(_width(row) for row in crops)
    font = _font('normal', 13)
    captions = [
        [_wrap(text, font, inner - _INDENT) for _, text in row.captions] for row in rows
    ]
    heights = [
        _HEADING + _HEIGHT + _LINE * (bool(lines) + sum(map(len, lines))) + _MARGIN
        for lines in captions
    ]
    sheet = Image.new('RGB', (inner + 2 * _MARGIN, sum(heights) + _MARGIN), PAPER)
    y = _MARGIN
    for row, images, lines, height in zip(rows, crops, captions, heights, strict=True):
        _render_row(sheet, row, images, lines, y)
        y += height
    return sheet


def _render_row(
    sheet: Image.Image,
    row: ContactRow,
    images: Sequence[Image.Image],
    captions: Sequence[Sequence[str]],
    y: int,
) -> None:
    draw = ImageDraw.Draw(sheet)
    font = _font('normal', 13)
    draw.text((_MARGIN, y), row.name, fill=INK, font=_font('bold', 15))
    y += _HEADING
    letters = {
        index: chr(ord('a') + number) for number, (index, _) in enumerate(row.captions)
    }
    x = _MARGIN
    for index, image in enumerate(images):
        sheet.paste(image, (x, y))
        middle = (x + image.width // 2, y + _HEIGHT + 2)
        draw.text(middle, letters.get(index, ''), fill=INK, font=font, anchor='ma')
        x += image.width + _GAP
    y += _HEIGHT + _LINE
    for (index, _), lines in zip(row.captions, captions, strict=True):
        draw.text((_MARGIN, y), letters[index], fill=INK, font=font)
        for line in lines:
            draw.text((_MARGIN + _INDENT, y), line, fill=INK, font=font)
            y += _LINE


def _enlarge(crop: np.ndarray) -> Image.Image:
    height, width = crop.shape[:2]
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    return Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC)


def _width(images: Sequence[Image.Image]) -> int:
    return sum(image.width for image in images) + _GAP * (len(images) - 1)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels, words kept whole."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(weight: str, size: int) -> ImageFont.FreeTypeFont:
    properties = font_manager.FontProperties(family='DejaVu Sans', weight=weight)
    return ImageFont.truetype(font_manager.findfont(properties), size)
