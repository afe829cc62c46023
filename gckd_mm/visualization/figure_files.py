"""Figures of matplotlib as files, equal bytes for equal figures, or as pixels."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically

# What a format would write the time of the day into.
_METADATA: dict[str, dict[str, None]] = {
    '.pdf': {'CreationDate': None},
    '.png': {},
    '.svg': {'Date': None},
}
_DPI = 150


def check_figure_path(path: str) -> None:
    """Refuse the name of a file that no figure can be written to."""
    if Path(path).suffix not in _METADATA:
        raise InputError(f'{path}: must end in {", ".join(_METADATA)}')


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure in the format of the file's suffix."""
    check_figure_path(path)
    suffix = Path(path).suffix
    buffer = io.BytesIO()
    # Names inside an SVG are random without a salt.
    with matplotlib.rc_context({'svg.hashsalt': 'gckd_mm'}):
        figure.savefig(
            buffer, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix] or None
        )
    write_atomically(path, buffer.getvalue())


def pixels_of(figure: Figure) -> np.ndarray:
    """Return a figure's pixels: RGB, uint8, shape (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
