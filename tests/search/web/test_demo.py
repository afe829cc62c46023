"""The gallery of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.web import demo
from gckd_mm.synthpedes.domain import Sizes


def test_it_is_drawn_and_indexed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, '_SIZES', Sizes(train=2, val=2, test=5))
    inferencer = PersonSearchInferencer(demo.MODEL, device='cpu', show_progress=False)
    with demo.demo_gallery(inferencer, tmp_path) as gallery:
        count = len(gallery)
        assert count >= 20
        (found,) = inferencer.search(gallery, ['a woman in a red coat'], 3)
    assert Path(gallery.file_of(found[0].item)).is_file()
    # a kill while an older one was being removed
    (tmp_path / 'gallery/gallery.json').unlink()
    with demo.demo_gallery(inferencer, tmp_path) as gallery:
        assert len(gallery) == count
        assert inferencer.search(gallery, ['a woman in a red coat'], 3) == [found]
