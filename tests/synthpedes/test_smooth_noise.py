"""Noise that changes slowly."""

from __future__ import annotations

import numpy as np

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.smooth_noise import smooth_noise


def test_smooth_noise_is_smooth_and_repeats() -> None:
    noise = smooth_noise(RandomStream('n'), 64, 48, 6)
    assert noise.shape == (64, 48)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, smooth_noise(RandomStream('n'), 64, 48, 6))
    assert noise.std() > 0.3
    assert np.abs(np.diff(noise, axis=0)).max() < 0.9
