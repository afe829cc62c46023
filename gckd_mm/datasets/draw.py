"""A draw: what a sampler hands to a dataset, the augmentation's seed included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """One training sample, chosen and seeded by the sampler.

    A map-style dataset in a worker process knows neither the iteration nor how many
    workers there are. All randomness of a sample therefore travels with its index:
    the same draw gives the same item in any worker, on any rank and after a resume.
    """

    index: Any  # int, or a triple (source pair, target image, target caption)
    seed: int


@contextmanager
def seeded_augmentation(seed: int) -> Iterator[None]:
    """Seed ``random``, NumPy and torch (CPU) inside, and give their states back."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - mmcv draws from the global one
    torch_state = torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
