"""What the page is made of, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gckd_mm.search.web.service import SearchService

pytest.importorskip('gradio')
from gckd_mm.search.web import page
from gckd_mm.search.web.uploads import Uploads


@pytest.mark.parametrize(
    'values', [[False, True], ['true', '7', 'he said "x" or y'], [1, 2.5]]
)
def test_a_choice_is_the_condition_of_its_value(values: list[Any]) -> None:
    for value in values:
        condition = page._condition('x', str(value), values)
        assert (condition.field, condition.operator) == ('x', '=')
        assert condition.value == value
        assert type(condition.value) is type(value)


@pytest.mark.parametrize('has_matching', [False, True])
def test_what_is_offered(
    service: SearchService,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    has_matching: bool,
) -> None:
    encoder = type(service.inferencer.encoder)
    monkeypatch.setattr(encoder, 'has_matching', has_matching)
    blocks = page.make_page(service, Uploads(tmp_path)).blocks.values()
    menus = {menu.label: menu for menu in blocks if type(menu).__name__ == 'Dropdown'}
    assert list(menus) == ['Order of the results', 'camera', 'note'], 'and no moments'
    orders = [value for _, value in menus['Order of the results'].choices]
    assert orders == ['', 'k_reciprocal', 'propagation', *['matching'] * has_matching]
