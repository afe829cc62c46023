"""The data that ``benchmarks/data.py`` measures on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from mmengine.registry import DefaultScope

from gckd_mm.registry import DATASETS


@pytest.fixture
def data(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script('data')


def test_annotations_are_read_as_cuhk_pedes(
    data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, 'TRAIN_RECORDS', 40)
    data.draw_annotations(tmp_path / 'data', 60, seed=0)
    sizes = {}
    for split in ('train', 'test'):
        with DefaultScope.overwrite_default_scope('gckd_mm'):
            dataset = DATASETS.build(
                dict(
                    type='CUHKPEDES',
                    data_root=str(tmp_path / 'data'),
                    split=split,
                    view='images',
                    pipeline=[],
                )
            )
        sizes[split] = len(dataset)
    assert sizes == {'train': 40, 'test': 20}


def test_a_process_tells_its_own_memory(data: ModuleType) -> None:
    held = bytearray(64_000_000)
    before = data._private_mb('self')
    held += bytearray(64_000_000)
    grown = data._private_mb('self') - before
    assert 50 < grown < 200
    assert data._peak_mb() > 100
