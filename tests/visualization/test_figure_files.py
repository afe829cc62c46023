"""Figures are written whole, in the format asked for, and always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from gckd_mm.errors import InputError
from gckd_mm.visualization.figure_files import pixels_of, save_figure

BEGINNINGS = {'.png': b'\x89PNG', '.svg': b'<?xml', '.pdf': b'%PDF'}


def _figure() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_axes((0, 0, 1, 1)).scatter([0, 1], [1, 0], color='red')
    return figure


@pytest.mark.parametrize('suffix', BEGINNINGS)
def test_equal_figures_are_equal_files(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f'{name}{suffix}' for name in ('one', 'two')]
    for file in files:
        save_figure(_figure(), str(file))
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(BEGINNINGS[suffix])
    assert first == second


def test_pixels_are_rgb() -> None:
    pixels = pixels_of(_figure())
    assert (pixels.dtype, pixels.shape) == (np.uint8, (100, 200, 3))
    assert (pixels == (255, 0, 0)).all(axis=-1).any()


def test_a_suffix_of_no_format(tmp_path: Path) -> None:
    path = tmp_path / 'map.gif'
    with pytest.raises(InputError, match=r'map\.gif: must end in \.pdf, \.png, \.svg'):
        save_figure(_figure(), str(path))
    assert not path.exists()
