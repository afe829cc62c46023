"""Hooks run when a module is imported, and not before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module, reload
from inspect import getsource
from pathlib import Path

import pytest

from gckd_mm import import_hooks
from gckd_mm.import_hooks import after_import, around_import


@pytest.fixture
def module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(import_hooks._finder, 'hooks', {})

    def write(name: str, source: str) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f'{name}.py').write_text(source)

    return write


def test_an_action_follows_the_import(module: Callable[[str, str], None]) -> None:
    module('hooked_once', 'value = 1')
    seen = []
    after_import('hooked_once', lambda: seen.append(sys.modules['hooked_once'].value))
    assert seen == []

    hooked = import_module('hooked_once')
    import_module('hooked_once')

    assert seen == [1]
    assert getsource(hooked).strip() == 'value = 1'


def test_an_action_on_what_is_imported_follows_at_once() -> None:
    seen: list[int] = []

    after_import('json', lambda: seen.append(1))

    assert seen == [1]


def test_a_hook_may_execute_a_module_again(module: Callable[[str, str], None]) -> None:
    module('hooked_twice', 'import builtins\nbuiltins.first_attempt_of_hook')

    def again(execute: Callable[[], None]) -> None:
        with pytest.raises(AttributeError):
            execute()
        import builtins

        builtins.first_attempt_of_hook = True  # type: ignore[attr-defined]
        try:
            execute()
        finally:
            del builtins.first_attempt_of_hook  # type: ignore[attr-defined]

    around_import('hooked_twice', again)

    assert import_module('hooked_twice').__name__ == 'hooked_twice'


def test_other_loaders_stay_as_they_are(module: Callable[[str, str], None]) -> None:
    module('hooked', 'value = 1')
    module('not_hooked', 'value = 2')
    seen: list[int] = []
    after_import('hooked', lambda: seen.append(1))

    assert import_module('not_hooked').value == 2
    assert seen == []
    reload(import_module('hooked'))
    assert seen == [1, 1]


def test_a_module_that_is_not_there_is_not_found() -> None:
    after_import('nothing_of_this_name', lambda: None)

    with pytest.raises(ModuleNotFoundError, match='nothing_of_this_name'):
        import_module('nothing_of_this_name')
    del import_hooks._finder.hooks['nothing_of_this_name']
