"""Contact sheets show every crop and keep to the paper."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from gckd_mm.synthpedes.contact_sheet import ContactRow, render_contact_sheet
from gckd_mm.visualization.rank_lists import PAPER

COLOURS = ('blue', 'lime', 'red')
CROPS = [
    np.full((160, 80, 3), ImageColor.getrgb(colour), np.uint8) for colour in COLOURS
]


def test_every_crop_has_the_same_height() -> None:
    rows = [
        ContactRow('street', CROPS),
        ContactRow('mall', [crop[::4, ::2] for crop in CROPS]),
    ]
    pixels = np.asarray(render_contact_sheet(rows))
    for colour in COLOURS:
        found = (pixels == ImageColor.getrgb(colour)).all(axis=-1)
        assert found.sum() == 200 * 100 + 200 * 200  # of 80 x 160, of 40 x 40
        assert found.any(axis=1).sum() == 2 * 200


def test_captions_make_room_for_themselves() -> None:
    row = ContactRow('street', CROPS)
    caption = 'A woman in a blue coat. ' * 8
    heights = [
        render_contact_sheet([row._replace(captions=captions)]).height
        for captions in ([], [(0, 'A man.')], [(0, caption), (2, caption)])
    ]
    assert heights == sorted(set(heights))


def test_nothing_is_written_on_the_margin() -> None:
    row = ContactRow('street', CROPS, [(1, 'A woman in a blue coat. ' * 20)])
    pixels = np.asarray(render_contact_sheet([row] * 2))
    ink = (pixels != ImageColor.getrgb(PAPER)).any(axis=-1)
    assert not ink[:, -12:].any()
    assert not ink[:, :12].any()
    assert not ink[-12:].any()
    assert not ink[:12].any()


def test_letters_tell_which_crop_a_caption_is_of() -> None:
    sheets = [
        np.asarray(
            render_contact_sheet([ContactRow('mall', CROPS, [(index, 'A man.')])])
        )
        for index in range(3)
    ]
    below = [sheet[20 + 26 + 200 :][:18] for sheet in sheets]
    columns = [np.flatnonzero((band < 128).any(axis=(0, 2))).mean() for band in below]
    assert columns == pytest.approx([20 + 50, 128 + 50, 236 + 50], abs=3)


def test_what_cannot_be_plotted() -> None:
    with pytest.raises(ValueError, match='no rows'):
        render_contact_sheet([])
    with pytest.raises(ValueError, match="'street' has no crops"):
        render_contact_sheet([ContactRow('street', [])])
    with pytest.raises(ValueError, match='has 3 crops, but a caption of crop 3'):
        render_contact_sheet([ContactRow('street', CROPS, [(3, 'A man.')])])
