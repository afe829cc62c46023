"""A folder of crops is a target."""

from __future__ import annotations

from pathlib import Path

import pytest

from gckd_mm.datasets import CrossDomainDataset, Draw, PersonImageFolder
from gckd_mm.datasets.samplers import CrossDomainSampler
from gckd_mm.errors import InputError, MissingDataError

LOAD = [dict(type='LoadPersonImage'), dict(type='PackPersonText')]


def test_a_folder_is_the_target_of_two_domains(miniature: Path) -> None:
    crops = miniature / 'rstpreid' / 'imgs'
    dataset = CrossDomainDataset(
        source=dict(
            type='gckd_mm.CUHKPEDES',
            data_root=str(miniature / 'cuhk_pedes'),
            pipeline=[dict(step, type=f'gckd_mm.{step["type"]}') for step in LOAD],
        ),
        target=dict(
            type='gckd_mm.PersonImageFolder',
            data_root=str(crops),
            pipeline=[dict(step, type=f'gckd_mm.{step["type"]}') for step in LOAD],
        ),
    )
    assert dataset.num_target_images == len(list(crops.iterdir()))
    assert dataset.num_target_captions == 0
    draw = next(iter(CrossDomainSampler(dataset, seed=0)))
    assert isinstance(draw, Draw)
    target = dataset[draw]['target']
    assert set(target) == {'inputs', 'image_index'}
    assert set(target['inputs']) == {'images'}


def test_images_are_found_in_subfolders_and_other_files_are_not(
    miniature: Path, tmp_path: Path
) -> None:
    crops = miniature / 'icfg_pedes' / 'imgs'
    folder = PersonImageFolder(str(crops))
    paths = [folder.get_data_info(index)['img_path'] for index in range(len(folder))]
    assert sorted(paths) == sorted(str(path) for path in crops.rglob('*.png'))
    assert set(folder.pids) == {-1}
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(InputError, match='holds no image'):
        PersonImageFolder(str(tmp_path))
    with pytest.raises(MissingDataError, match='missing image folder'):
        PersonImageFolder(str(tmp_path / 'nowhere'))
