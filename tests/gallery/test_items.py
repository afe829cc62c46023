"""What a gallery knows of an image."""

from __future__ import annotations

import pytest

from gckd_mm.gallery.items import iso_time, seconds_of


@pytest.mark.parametrize('seconds', [0.0, 1795336200.0, -1.5, 1795336200.25])
def test_a_time_comes_back(seconds: float) -> None:
    assert seconds_of(iso_time(seconds), 'here') == seconds


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (1795336200, '2026-11-22T08:30:00+00:00'),
        (1e300, '1e+300'),
        (-1e300, '-1e+300'),
        (1e12, '1000000000000.0'),
    ],
)
def test_a_time_is_utc_or_a_number(seconds: float, text: str) -> None:
    assert iso_time(seconds) == text
