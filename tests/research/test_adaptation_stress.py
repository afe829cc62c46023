"""Targets on which the assumptions do not hold: how they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gckd_mm.registry import DATASETS
from gckd_mm.synthpedes.domain import Sizes, SynthDomain


@pytest.fixture
def stress(research_script: Callable[[str], ModuleType]) -> ModuleType:
    return research_script('adaptation_stress')


def records(people: int, images: int) -> list[dict[str, Any]]:
    return [
        {'id': pid, 'img_path': f'{pid}_{number}.jpg', 'captions': [f'{pid} {number}']}
        for pid in range(people)
        for number in range(images)
    ]


def test_half_of_the_captions_are_of_people_without_an_image(
    stress: ModuleType,
) -> None:
    given = records(10, 4)

    chosen = stress.without_images_of_half(given)

    pictured = {record['id'] for record in chosen}
    assert pictured == {0, 2, 4, 6, 8}
    assert len(chosen) == 20
    captions = [caption for record in chosen for caption in record['captions']]
    assert sorted(captions) == sorted(c for r in given for c in r['captions'])
    assert given == records(10, 4)  # left as it was


def test_people_have_from_one_to_twenty_images(stress: ModuleType) -> None:
    chosen = stress.unbalanced(records(600, 20))

    counts = Counter(record['id'] for record in chosen)
    assert len(counts) == 600
    assert min(counts.values()) == 1
    assert max(counts.values()) >= 15
    assert 3.5 < len(chosen) / 600 < 4.5
    assert stress.unbalanced(records(600, 20)) == chosen


def test_only_the_train_set_of_the_target_is_changed(
    stress: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Sizes(train=4, val=0, test=2, images=2)
    monkeypatch.setattr(stress, 'Sizes', lambda **_: few)
    adaptation_run = __import__('adaptation_run')
    place = adaptation_run.Place(tmp_path, tmp_path / 'runs', 1)

    def run(name: str, method: str = 'gckd') -> Any:
        return stress.StressedRun(
            name,
            name=method,
            method=stress.METHODS[method],
            direction='street2mall',
            world=1,
            place=place,
        )

    strangers = run('strangers')
    strangers.write_train_set()
    cfg = strangers._config(strangers.method)

    changed = tmp_path / 'world1/mall_strangers'
    assert cfg.train_dataloader.dataset.target.data_root == str(changed)
    assert cfg.train_dataloader.dataset.source.data_root == str(
        tmp_path / 'world1/street'
    )
    gallery = cfg.test_dataloader.mall.gallery.dataset
    assert gallery.data_root == str(tmp_path / 'world1/mall')
    dataset = DATASETS.build(
        {**cfg.train_dataloader.dataset.target, '_scope_': 'gckd_mm'}
    )
    drawn = SynthDomain('mall', 1, few)
    assert {record.pid for record in dataset.load_records()} == {0, 2}
    assert drawn.sizes.train == 4
    small = run('small_memory')
    assert small._config(small.method).model.memory_size == 600
    assert len({each.folder for each in (strangers, small)}) == 2
    # and so are the baselines' memories
    for method in ('spcl', 'pouf'):
        baseline = run('small_memory', method)
        assert baseline._config(baseline.method).model.adaptation.memory_size == 600
    with pytest.raises(SystemExit, match='mmd has no memory'):
        run('small_memory', 'mmd')._config(stress.METHODS['mmd'])
    assert small._config(stress.STAGES['source']).model.type == 'DualEncoder'
