"""Modules under the names that they had in version 0.1.

An old name gives the very module, not a copy: its classes are the same classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

#: name in version 0.1 -> name; what lies below moves along
MOVED = {
    'gckd_mm.cli': 'gckd_mm.search.cli',
    'gckd_mm.datasets.synthpedes': 'gckd_mm.synthpedes',
    'gckd_mm.export': 'gckd_mm.search.export',
    'gckd_mm.gallery': 'gckd_mm.search.gallery',
    'gckd_mm.models.heads.uda': 'gckd_mm.models.uda',
    'gckd_mm.web': 'gckd_mm.search.web',
}


def current_name(name: str) -> str | None:
    """Return where a module of version 0.1 is; None if it has not moved."""
    for old, new in MOVED.items():
        if name == old or name.startswith(f'{old}.'):
            return new + name.removeprefix(old)
    return None


class _MovedLoader(InspectLoader):
    """Give the module of another name, and its code to ``python -m``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system put the old name's there

    def get_code(self, fullname: str) -> CodeType | None:
        found = find_spec(self.name)
        loader = found and found.loader
        if not isinstance(loader, InspectLoader):
            return None
        return loader.get_code(self.name)

    def get_source(self, fullname: str) -> str | None:
        return None


class _MovedFinder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        name = current_name(fullname)
        if name is None:
            return None
        is_package = getattr(find_spec(name), 'submodule_search_locations', None)
        return ModuleSpec(
            fullname, _MovedLoader(name), is_package=is_package is not None
        )


def apply() -> None:
    """Let the import system know the old names; once is enough."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedFinder())  # before a moved package's own path
