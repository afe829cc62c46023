"""Damaged annotation files and the datasets that read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.datasets import CUHKPEDES, ICFGPEDES, RSTPReid
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import (
    damage_bytes,
    damage_value,
    odd_files,
    odd_texts,
    odd_values,
)
from tests.fuzz.judge import Judge, must_be_refused
from tools import check_dataset

DATASETS = {
    'cuhk_pedes': (CUHKPEDES, 'reid_raw.json'),
    'icfg_pedes': (ICFGPEDES, 'ICFG-PEDES.json'),
    'rstpreid': (RSTPReid, 'data_captions.json'),
}


def _problem(items: list[dict[str, Any]]) -> str | None:
    for item in items:
        caption, pid = item.get('caption', 'a'), item['pid']
        if not isinstance(caption, str) or not caption.strip():
            return f'caption {caption!r:.80}'
        if not isinstance(pid, int) or isinstance(pid, bool):
            return f'pid {pid!r:.80}'
    return None


def _items(kind: type, root: Path, view: str) -> list[dict[str, Any]]:
    dataset = kind(data_root=str(root), split='test', view=view, pipeline=[])
    return [dataset[row] for row in range(min(3, len(dataset)))]


@pytest.mark.parametrize('name', DATASETS)
def test_annotation_files(
    name: str,
    miniature: Path,
    tmp_path: Path,
    cases: Cases,
    record_property: Callable[[str, object], None],
) -> None:
    kind, file = DATASETS[name]
    root = tmp_path / name
    shutil.copytree(miniature / name, root)
    good = (root / file).read_bytes()
    records = json.loads(good)
    odd = odd_values()
    judge = Judge()
    for case, rng in cases(120, name):
        if case % 3:
            text = json.dumps(damage_value(records, rng, odd)).encode()
        else:
            _, text = damage_bytes(good, rng)
        (root / file).write_bytes(text)
        view = ('pairs', 'images', 'captions')[case % 3]
        where = f'{name} {view} {cases.label(case)}'
        judge.case(where, partial(_items, kind, root, view), _problem)
        if case % 10 == 0:
            tool = [kind.__name__, str(root)]
            judge.case(f'check_dataset {where}', partial(check_dataset.main, tool))
    for what, text in odd_texts(good).items():
        (root / file).write_bytes(text)
        judge.case(f'{name} {what}', partial(_items, kind, root, 'pairs'), _problem)
    for what, path in odd_files(tmp_path, '.json').items():
        judge.case(
            f'{name} {what}',
            partial(
                kind,
                data_root=str(root),
                ann_file=str(path),
                split='test',
                pipeline=[],
            ),
            must_be_refused,
        )
    judge.finish(record_property)
