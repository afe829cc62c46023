"""Import the scripts of research, which is no package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'research'


@pytest.fixture
def research_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Give a function that imports one of the scripts by name."""
    # as for `python research/<name>.py`, and undone with all that they add
    monkeypatch.setattr(sys, 'path', [str(FOLDER), *sys.path])
    return import_module
