"""What the tests of the datasets share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope='package', autouse=True)
def _quick_collections() -> Iterator[None]:
    """Leave the imported packages out of mmengine's garbage collection per dataset."""
    gc.freeze()
    yield
    gc.unfreeze()
