"""Components are looked up in our scope, as in a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield
