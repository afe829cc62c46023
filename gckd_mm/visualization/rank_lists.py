"""Rank lists: a caption and the crops it finds, right and wrong ones framed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from gckd_mm.datasets.transforms.load_person_image import read_image

RIGHT, WRONG, INK, PAPER = '#2a9d57', '#d1495b', '#222222', '#ffffff'
_CROP = (96, 192)  # width, height
_CAPTION_WIDTH, _MARGIN, _FRAME, _LINE = 240, 12, 4, 18


class RankList(NamedTuple):
    """One query and the head of its ranking."""

    caption: str
    images: Sequence[str]  # paths, best first
    scores: Sequence[float]  # cosine similarities
    correct: Sequence[bool] | None = None  # same person id; None where nobody knows
    query_id: str = ''  # who is described; nothing where nobody knows
    ids: Sequence[str] | None = None  # who is on the images; None where nobody knows


def render_rank_lists(rank_lists: Sequence[RankList], title: str = '') -> Image.Image:
    """Render rank lists one below the other: right crops green, wrong ones red.

    Where nobody knows which are right, there are no frames; ids are written where they
    are known.
    """
    if not rank_lists:
        raise ValueError('there are no rank lists to render')
    font = ImageFont.truetype(font_manager.findfont('DejaVu Sans'), 13)
    columns = max(len(rank_list.images) for rank_list in rank_lists)
    lines = 2 if any(rank_list.ids for rank_list in rank_lists) else 1
    row_height = _CROP[1] + lines * _LINE + 2 * _MARGIN
    top = 2 * _MARGIN + _LINE if title else _MARGIN
    width = _CAPTION_WIDTH + columns * (_CROP[0] + _MARGIN) + 2 * _MARGIN
    sheet = Image.new('RGB', (width, top + row_height * len(rank_lists)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font)
    for row, rank_list in enumerate(rank_lists):
        y = top + row * row_height
        caption = '\n'.join(wrap(rank_list.caption, 32, max_lines=10))
        if rank_list.query_id:
            caption = f'id {rank_list.query_id}\n{caption}'
        draw.multiline_text((_MARGIN, y), caption, fill=INK, font=font, spacing=4)
        for column in range(len(rank_list.images)):
            x = _CAPTION_WIDTH + column * (_CROP[0] + _MARGIN)
            _render_match(sheet, draw, font, rank_list, column, (x, y))
    return sheet


def _render_match(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    rank_list: RankList,
    column: int,
    corner: tuple[int, int],
) -> None:
    x, y = corner
    colour, mark = PAPER, ''
    if rank_list.correct is not None:
        right = rank_list.correct[column]
        colour, mark = (RIGHT, '✓ ') if right else (WRONG, '✗ ')
    crop = Image.fromarray(read_image(str(Path(rank_list.images[column]))))
    box = (x - _FRAME, y - _FRAME, x + _CROP[0] + _FRAME, y + _CROP[1] + _FRAME)
    draw.rectangle(box, fill=colour)
    sheet.paste(crop.resize(_CROP, Image.Resampling.BICUBIC), (x, y))
    label = f'{mark}{rank_list.scores[column]:.2f}'
    ink = INK if rank_list.correct is None else colour
    y += _CROP[1] + _FRAME + 2
    draw.text((x, y), label, fill=ink, font=font)
    if rank_list.ids:
        id_of_match = f'id {rank_list.ids[column]}'
        draw.text((x, y + _LINE - 2), id_of_match, fill=INK, font=font)
