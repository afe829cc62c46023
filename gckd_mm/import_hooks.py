"""Act when a module is first imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeAlias

#: is given what executes the module, and calls it
Hook: TypeAlias = Callable[[Callable[[], None]], None]


class _HookFinder(MetaPathFinder):
    """Find modules as the other finders do, and wrap the execution of some."""

    def __init__(self) -> None:
        self.hooks: dict[str, Hook] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        hook = self.hooks.get(fullname)
        if hook is None:
            return None
        for finder in sys.meta_path:
            spec = None
            if finder is not self and hasattr(finder, 'find_spec'):
                spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _wrap(spec.loader, hook)
                return spec
        return None


def _wrap(loader: Any, hook: Hook) -> None:
    """Wrap the loader of one module; its class stays as it is."""
    execute = loader.exec_module
    loader.exec_module = lambda module: hook(lambda: execute(module))


_finder = _HookFinder()


def around_import(name: str, hook: Hook) -> None:
    """Let a hook execute a module; one that is imported already counts as executed."""
    if name in sys.modules:
        hook(lambda: None)
        return
    _finder.hooks[name] = hook
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def after_import(name: str, action: Callable[[], object]) -> None:
    """Act as soon as a module has been imported."""

    def hook(execute: Callable[[], None]) -> None:
        execute()
        action()

    around_import(name, hook)
