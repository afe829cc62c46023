"""Walk over a config: each of its dicts, with the dotted path that leads there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from gckd_mm.registry import type_name


def parts_of(value: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield every dict inside a value, the outer before the inner, with its path."""
    if isinstance(value, dict | Config):
        yield path, value
        for key, part in value.items():
            yield from parts_of(part, f'{path}.{key}' if path else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from parts_of(part, f'{path}.{number}')


def rewritten(value: Any, change: Callable[[dict], dict]) -> Any:
    """Return a copy of a value in which every dict is changed, the inner first."""
    if isinstance(value, dict):
        return change({key: rewritten(part, change) for key, part in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(rewritten(part, change) for part in value)
    return value


def kind_of(part: Any) -> str:
    """Return the name of a component's class, without its scope; '' if it has none."""
    return type_name(part.get('type')) if isinstance(part, dict) else ''
