"""Rank lists show the right crops in the right frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageColor

from gckd_mm.visualization import RankList, draw_rank_lists
from gckd_mm.visualization.rank_lists import RIGHT, WRONG


def test_frames_tell_right_from_wrong(tmp_path: Path) -> None:
    path = str(tmp_path / 'crop.png')
    Image.new('RGB', (20, 40), 'blue').save(path)
    rank_list = RankList('a blue coat ' * 40, [path] * 3, [0.9, 0.8, 0.7], [True] * 3)
    pictures = [
        draw_rank_lists([rank_list._replace(correct=[correct] * 3)] * 2, title='t')
        for correct in (True, False)
    ]
    assert pictures[0].size == pictures[1].size
    for picture, present, absent in zip(
        pictures, (RIGHT, WRONG), (WRONG, RIGHT), strict=True
    ):
        colours = {colour for _, colour in picture.getcolors(maxcolors=2**16)}
        assert ImageColor.getrgb(present) in colours
        assert ImageColor.getrgb(absent) not in colours
        assert ImageColor.getrgb('blue') in colours


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match='no rank lists'):
        draw_rank_lists([])
