"""Rank lists show the right crops in the right frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from gckd_mm.visualization import RankList, render_rank_lists
from gckd_mm.visualization.rank_lists import PAPER, RIGHT, WRONG


@pytest.fixture
def crop(tmp_path: Path) -> str:
    path = str(tmp_path / 'crop.png')
    Image.new('RGB', (20, 40), 'blue').save(path)
    return path


def test_frames_tell_right_from_wrong(crop: str) -> None:
    rank_list = RankList('a blue coat ' * 40, [crop] * 3, [0.9, 0.8, 0.7], [True] * 3)
    sheets = [
        render_rank_lists([rank_list._replace(correct=[correct] * 3)] * 2, title='t')
        for correct in (True, False)
    ]
    assert sheets[0].size == sheets[1].size
    for sheet, present, absent in zip(
        sheets, (RIGHT, WRONG), (WRONG, RIGHT), strict=True
    ):
        colours = {colour for _, colour in sheet.getcolors(maxcolors=2**16)}
        assert ImageColor.getrgb(present) in colours
        assert ImageColor.getrgb(absent) not in colours
        assert ImageColor.getrgb('blue') in colours


def test_each_crop_is_in_its_own_frame(crop: str) -> None:
    correct = [[True, False, True], [False, False, True]]
    lists = [RankList('a coat', [crop] * 3, [0.9, 0.8, 0.7], row) for row in correct]
    pixels = np.asarray(render_rank_lists(lists))
    blue = (pixels == ImageColor.getrgb('blue')).all(axis=-1)
    tops, lefts = (_starts(blue.any(axis=axis)) for axis in (1, 0))
    assert (len(tops), len(lefts)) == (2, 3)
    for top, row in zip(tops, correct, strict=True):
        for left, right in zip(lefts, row, strict=True):
            expected = ImageColor.getrgb(RIGHT if right else WRONG)
            for y, x in ((top + 50, left - 2), (top - 2, left + 30)):
                assert tuple(pixels[y, x]) == expected


def _starts(mask: np.ndarray) -> list[int]:
    """Return where the runs of true values begin."""
    return [i for i in np.flatnonzero(mask) if i == 0 or not mask[i - 1]]


def test_without_knowledge_there_are_no_frames(crop: str) -> None:
    sheet = render_rank_lists([RankList('a coat', [crop], [0.9])])
    colours = {colour for _, colour in sheet.getcolors(maxcolors=2**16)}
    assert not {ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)} & colours


def test_ids_are_written_where_they_are_known(crop: str) -> None:
    plain = RankList('a coat', [crop] * 2, [0.9, 0.8], [True, False])
    known = plain._replace(query_id='17', ids=['17', '4'])
    other = plain._replace(query_id='17', ids=['17', '5'])
    bands = [_ink_below_the_crops(rank_list) for rank_list in (plain, known, other)]
    assert bands[0].shape[0] < bands[1].shape[0] == bands[2].shape[0]
    changed = (bands[1] != bands[2]).any(axis=0)
    # of the second crop's label alone, which begins at its left edge
    assert changed.any()
    assert np.flatnonzero(changed).min() > 240 + 96


def _ink_below_the_crops(rank_list: RankList) -> np.ndarray:
    pixels = np.asarray(render_rank_lists([rank_list]))
    ink = (pixels != ImageColor.getrgb(PAPER)).any(axis=-1)
    blue = (pixels == ImageColor.getrgb('blue')).all(axis=-1)
    return ink[np.flatnonzero(blue.any(axis=1)).max() + 6 :]


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match='no rank lists'):
        render_rank_lists([])
