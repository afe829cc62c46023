"""The three official datasets, their three views, and their augmentation."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from gckd_mm.datasets import (
    CUHKPEDES,
    ICFGPEDES,
    Draw,
    PersonImageFolder,
    PersonTextDataset,
    RSTPReid,
)
from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config.fromfile(ROOT / 'configs/_base_/datasets/person_text_64x32.py')
#: class, folder, annotation file, the field of the image, ways of the split
OFFICIAL = (
    (CUHKPEDES, 'cuhk_pedes', 'reid_raw.json', 'file_path', ('train', 'val', 'test')),
    (ICFGPEDES, 'icfg_pedes', 'ICFG-PEDES.json', 'file_path', ('train', 'test')),
    (RSTPReid, 'rstpreid', 'data_captions.json', 'img_path', ('train', 'val', 'test')),
)
VIEWS = ('pairs', 'images', 'captions')


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def naive_items(root: Path, ann_file: str, image: str, split: str, view: str) -> list:
    """What a view shows, counted from the JSON: (pid, image path, caption)."""
    items = []
    for raw in json.loads((root / ann_file).read_text(encoding='utf-8')):
        if raw['split'].lower() != split:
            continue
        path = str(root / 'imgs' / raw[image])
        if view == 'images':
            items.append((raw['id'], path, None))
        for caption in raw['captions']:
            if view == 'pairs':
                items.append((raw['id'], path, caption))
            if view == 'captions':
                items.append((raw['id'], None, caption))
    return items


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('official', OFFICIAL, ids=lambda official: official[1])
def test_a_view_against_a_naive_count(
    miniature: Path, official: tuple, view: str
) -> None:
    kind, folder, ann_file, image, splits = official
    for split in splits:
        dataset = kind(str(miniature / folder), split=split, view=view)

        expected = naive_items(miniature / folder, ann_file, image, split, view)
        items = [dataset[index] for index in range(len(dataset))]
        assert expected
        assert [
            (item['pid'], item.get('img_path'), item.get('caption')) for item in items
        ] == expected
        assert [item['sample_idx'] for item in items] == list(range(len(expected)))
        assert dataset.pids.tolist() == [pid for pid, _, _ in expected]
        assert dataset.pids.dtype == np.int64


@pytest.mark.parametrize('official', OFFICIAL, ids=lambda official: official[1])
def test_captions_are_those_of_the_split(miniature: Path, official: tuple) -> None:
    kind, folder, ann_file, image, _ = official
    dataset = kind(str(miniature / folder), split='train', view='images')

    expected = naive_items(miniature / folder, ann_file, image, 'train', 'captions')
    assert dataset.captions() == [caption for _, _, caption in expected]


def test_icfg_has_no_val_split(miniature: Path) -> None:
    with pytest.raises(InputError, match=r"ICFG-PEDES\.json: no record in split 'val'"):
        ICFGPEDES(str(miniature / 'icfg_pedes'), split='val')


def test_icfg_has_one_caption_an_image(miniature: Path) -> None:
    lengths = {
        view: len(ICFGPEDES(str(miniature / 'icfg_pedes'), split='test', view=view))
        for view in VIEWS
    }

    assert len(set(lengths.values())) == 1


@pytest.mark.parametrize('name', ['ICFG-PEDES.json', 'ICFG_PEDES.json'])
def test_icfg_goes_by_either_file_name(
    miniature: Path, tmp_path: Path, name: str
) -> None:
    source = miniature / 'icfg_pedes'
    shutil.copy(source / 'ICFG-PEDES.json', tmp_path / name)
    (tmp_path / 'imgs').symlink_to(source / 'imgs')

    assert len(ICFGPEDES(str(tmp_path))) == len(ICFGPEDES(str(source)))


def test_a_caption_of_another_number_of_captions_counts(
    miniature: Path, tmp_path: Path
) -> None:
    # Nine images of CUHK-PEDES have more than two.
    root = shutil.copytree(miniature / 'cuhk_pedes', tmp_path / 'cuhk')
    records = json.loads((root / 'reid_raw.json').read_text())
    records[0]['captions'] = ['one', 'two', 'three']
    records[1]['captions'] = ['one']
    (root / 'reid_raw.json').write_text(json.dumps(records))

    captions = CUHKPEDES(str(root), view='captions')

    assert [captions[index]['caption'] for index in range(4)] == [
        *('one', 'two', 'three', 'one')
    ]
    assert captions.pids[:4].tolist() == [records[0]['id']] * 3 + [records[1]['id']]


@pytest.mark.parametrize('official', OFFICIAL, ids=lambda official: official[1])
@pytest.mark.parametrize('gone', ['everything', 'annotations', 'imgs', 'an image'])
def test_missing_data_says_how_to_get_it(
    miniature: Path, tmp_path: Path, official: tuple, gone: str
) -> None:
    kind, folder, ann_file, image, _ = official
    root = tmp_path / folder
    if gone != 'everything':
        shutil.copytree(miniature / folder, root)
    lost = root / ann_file
    if gone == 'annotations':
        lost.unlink()
    if gone == 'imgs':
        lost = root / 'imgs'
        shutil.rmtree(lost)
    if gone == 'an image':
        records = json.loads(lost.read_text())
        lost = root / 'imgs' / records[0][image]
        lost.unlink()

    with pytest.raises(MissingDataError) as error:
        kind(str(root))

    message = str(error.value)
    assert str(lost) in message or lost.name in message
    assert kind.__name__ in message
    assert 'https://github.com/' in message
    assert str(root) in message
    assert ann_file in message
    runs_meanwhile = 'configs/baselines/source_only_street2mall.py'
    assert runs_meanwhile in message
    assert (ROOT / runs_meanwhile).is_file()


def test_the_default_folder_is_below_data(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/rstpreid').symlink_to(miniature / 'rstpreid')
    monkeypatch.chdir(tmp_path)

    assert len(RSTPReid()) == len(RSTPReid(str(miniature / 'rstpreid')))


def test_an_image_of_another_split_may_be_missing(
    miniature: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    records = json.loads((root / 'data_captions.json').read_text())
    lost = next(raw for raw in records if raw['split'] == 'test')
    (root / 'imgs' / lost['img_path']).unlink()

    assert len(RSTPReid(str(root), split='train'))
    assert len(RSTPReid(str(root), split='test', view='captions'))
    assert len(RSTPReid(str(root), split='test', view='images', check_images=False))
    with pytest.raises(MissingDataError, match=f'1 images.*{lost["img_path"]}'):
        RSTPReid(str(root), split='test', view='images')


@pytest.fixture
def damaged(miniature: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A dataset in which three train images cannot be read, and their names."""
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    records = json.loads((root / 'data_captions.json').read_text())
    names = [raw['img_path'] for raw in records if raw['split'] == 'train'][3:6]
    cut, empty, other = (root / 'imgs' / name for name in names)
    cut.write_bytes(cut.read_bytes()[:-20])
    empty.write_bytes(b'')
    other.write_text('404: Not Found', encoding='utf-8')
    return root, names


def test_training_does_not_start_on_an_image_that_cannot_be_read(
    damaged: tuple[Path, list[str]],
) -> None:
    root, names = damaged
    with pytest.raises(InputError, match=f"3 images of split 'train'.*{names[0]}"):
        RSTPReid(str(root))
    assert len(RSTPReid(str(root), split='test', view='images'))
    assert len(RSTPReid(str(root), view='captions'))
    assert len(RSTPReid(str(root), check_images=False))


def test_what_cannot_be_read_is_skipped_and_counted_on_demand(
    damaged: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, names = damaged
    whole = RSTPReid(str(root), check_images=False)
    (root / 'imgs' / names[1]).unlink()

    dataset = RSTPReid(str(root), unreadable='skip', lazy_init=True)
    said: list[str] = []
    monkeypatch.setattr(
        'gckd_mm.datasets.person_text.print_log', lambda text, *_: said.append(text)
    )
    dataset.full_init()
    captions = dataset.captions()

    # Once, and not again for the captions.
    (message,) = said
    assert f'3 of {len(whole) // 2} images' in message
    assert 'are skipped' in message
    assert len(dataset) == len(whole) - 6 == len(captions)
    left = {
        Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))
    }
    assert left.isdisjoint(names)


def test_damage_between_sound_ends_is_found_by_decoding(
    miniature: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    records = json.loads((root / 'data_captions.json').read_text())
    name = next(raw['img_path'] for raw in records if raw['split'] == 'train')
    data = bytearray((root / 'imgs' / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (root / 'imgs' / name).write_bytes(data)

    whole = RSTPReid(str(root))
    with pytest.raises(InputError, match=f"1 images of split 'train'.*{name}"):
        RSTPReid(str(root), check_images='decode')
    kept = RSTPReid(str(root), check_images='decode', unreadable='skip')
    assert len(kept) == len(whole) - 2


def test_a_gallery_is_never_thinned(damaged: tuple[Path, list[str]]) -> None:
    root, _ = damaged
    for options in (dict(split='test'), dict(check_images=False)):
        with pytest.raises(InputError, match="is for split='train' with check_images"):
            RSTPReid(str(root), unreadable='skip', **options)
    with pytest.raises(InputError, match="True, False or 'decode', got 'fully'"):
        RSTPReid(str(root), check_images='fully')
    with pytest.raises(InputError, match="must be 'stop' or 'skip', got 'ignore'"):
        RSTPReid(str(root), unreadable='ignore')
    for image in (root / 'imgs').iterdir():
        image.write_bytes(b'')
    with pytest.raises(InputError, match='none of the images'):
        RSTPReid(str(root), unreadable='skip')


def test_an_unknown_view_or_split_is_refused(miniature: Path) -> None:
    root = str(miniature / 'cuhk_pedes')

    with pytest.raises(InputError, match=r"CUHKPEDES: view must be .*'pair'"):
        CUHKPEDES(root, view='pair')
    with pytest.raises(InputError, match=r"reid_raw\.json: unknown split 'dev'"):
        CUHKPEDES(root, split='dev')


def test_any_flat_file_of_ones_own(miniature: Path) -> None:
    own = PersonTextDataset(
        str(miniature / 'rstpreid'),
        ann_file='data_captions.json',
        schema=dict(image='img_path'),
    )

    assert own.captions() == RSTPReid(str(miniature / 'rstpreid')).captions()


def test_pids_follow_a_subset(miniature: Path) -> None:
    root = str(miniature / 'cuhk_pedes')
    whole = CUHKPEDES(root)

    for indices in (10, [5, 0, 100]):
        part = CUHKPEDES(root, indices=indices)
        chosen = range(indices) if isinstance(indices, int) else indices
        assert len(part) == len(chosen)
        assert part.pids.tolist() == [int(whole.pids[index]) for index in chosen]


def test_pids_are_there_when_loading_was_put_off(miniature: Path) -> None:
    root = str(miniature / 'cuhk_pedes')

    lazy = CUHKPEDES(root, lazy_init=True)

    assert lazy.pids.tolist() == CUHKPEDES(root).pids.tolist()


@pytest.mark.parametrize('view', VIEWS)
def test_a_packed_item_holds_its_view_and_no_path(miniature: Path, view: str) -> None:
    pipeline = {
        'pairs': CONFIG.train_pipeline,
        'images': CONFIG.image_pipeline,
        'captions': CONFIG.caption_pipeline,
    }[view]
    dataset = CUHKPEDES(str(miniature / 'cuhk_pedes'), view=view, pipeline=pipeline)

    item = dataset[3]

    expected = {'pairs': {'images', 'captions'}}.get(view, {view})
    assert set(item) == {'inputs', 'data_samples'}
    assert set(item['inputs']) == expected
    assert set(item['data_samples'].all_keys()) == {'pid', 'sample_idx'}
    assert item['data_samples'].pid == dataset.pids[3]
    if 'images' in expected:
        assert item['inputs']['images'].shape == (3, 64, 32)
        assert item['inputs']['images'].dtype == torch.uint8


@pytest.fixture
def augmented(miniature: Path) -> RSTPReid:
    return RSTPReid(str(miniature / 'rstpreid'), pipeline=CONFIG.train_pipeline)


def rng_states() -> tuple[Any, Any, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(),
        (name, keys.tolist(), *rest),
        torch.get_rng_state().tolist(),
    )


def disturb(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002


def test_a_draw_fixes_the_augmentation(augmented: RSTPReid) -> None:
    images = []
    for seed in (1, 2, 3):
        disturb(seed)
        images.append(augmented[Draw(5, seed=11)]['inputs']['images'])

    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_a_draw_leaves_the_global_generators_alone(augmented: RSTPReid) -> None:
    disturb(4)
    before = rng_states()

    augmented[Draw(5, seed=11)]

    assert rng_states() == before


def test_the_generators_are_given_back_after_an_error(augmented: RSTPReid) -> None:
    before = rng_states()

    with pytest.raises(IndexError):
        augmented[Draw(len(augmented), seed=11)]

    assert rng_states() == before


def test_other_seeds_augment_otherwise(augmented: RSTPReid) -> None:
    images = Counter(
        augmented[Draw(5, seed)]['inputs']['images'].numpy().tobytes()
        for seed in range(20)
    )

    assert len(images) > 10


def test_all_three_generators_are_seeded(miniature: Path) -> None:
    def draw_from_all(results: dict) -> list:
        return [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002

    dataset = RSTPReid(str(miniature / 'rstpreid'), pipeline=[draw_from_all])
    disturb(5)
    first = dataset[Draw(0, seed=2**40 + 1)]
    disturb(6)

    again, other = dataset[Draw(0, seed=2**40 + 1)], dataset[Draw(0, seed=2)]

    assert again == first
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_workers_change_nothing(augmented: RSTPReid) -> None:
    draws = [Draw(index, seed=index + 9) for index in (3, 1, 4, 1, 5, 9, 2, 6)]

    batches = {
        workers: list(
            DataLoader(
                augmented,
                batch_size=3,
                sampler=draws,
                num_workers=workers,
                collate_fn=pseudo_collate,
            )
        )
        for workers in (0, 2)
    }

    assert [len(batch['data_samples']) for batch in batches[0]] == [3, 3, 2]
    for alone, parallel in zip(batches[0], batches[2], strict=True):
        assert alone['inputs']['captions'] == parallel['inputs']['captions']
        pairs = zip(
            alone['inputs']['images'], parallel['inputs']['images'], strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
        assert [sample.to_dict() for sample in alone['data_samples']] == [
            sample.to_dict() for sample in parallel['data_samples']
        ]


def test_an_unknown_field_of_the_schema_is_refused(miniature: Path) -> None:
    with pytest.raises(InputError, match=r"got \['picture'\]"):
        CUHKPEDES(str(miniature / 'cuhk_pedes'), schema=dict(picture='file_path'))


@pytest.mark.parametrize('schema', ['img_path', ['image'], 3, {'image': 3}, {1: 'a'}])
def test_a_schema_that_is_no_schema(miniature: Path, schema: Any) -> None:
    with pytest.raises(InputError, match=r'CUHKPEDES: schema'):
        CUHKPEDES(str(miniature / 'cuhk_pedes'), schema=schema)


@pytest.mark.parametrize('name', ['data_root', 'ann_file', 'image_folder'])
@pytest.mark.parametrize('path', ['s3://bucket/x', 'https://a/b', 'a\0b', 5, ['a']])
def test_a_path_that_is_not_local(miniature: Path, name: str, path: Any) -> None:
    arguments = {'data_root': str(miniature / 'cuhk_pedes'), name: path}
    with pytest.raises(InputError, match=f'CUHKPEDES: {name} must be a'):
        CUHKPEDES(**arguments)


def test_a_path_may_be_a_path(miniature: Path) -> None:
    root = miniature / 'cuhk_pedes'
    assert len(CUHKPEDES(root)) == len(CUHKPEDES(str(root)))


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'device'])
def test_an_annotation_file_that_is_none(miniature: Path, tmp_path: Path, kind) -> None:
    (tmp_path / 'imgs').mkdir()
    path = tmp_path / 'reid_raw.json'
    {
        'fifo': lambda: os.mkfifo(path),
        'folder': path.mkdir,
        'device': lambda: path.symlink_to('/dev/zero'),
    }[kind]()
    with pytest.raises(MissingDataError, match='missing annotation file'):
        CUHKPEDES(str(tmp_path))


def test_ids_that_tell_nobody_apart_are_warned_of(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        'gckd_mm.datasets.person_text.print_log', lambda text, *_: said.append(text)
    )
    root = tmp_path / 'cuhk_pedes'
    shutil.copytree(miniature / 'cuhk_pedes', root)
    CUHKPEDES(str(root))
    assert not said
    records = json.loads((root / 'reid_raw.json').read_text())
    changed = [{**record, 'id': 3} for record in records]
    (root / 'reid_raw.json').write_text(json.dumps(changed))
    CUHKPEDES(str(root))
    (warning,) = said
    assert "of split 'train' have the id 3" in warning


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('official', OFFICIAL, ids=lambda official: official[1])
def test_gt_label_numbers_the_people_of_the_train_split(
    miniature: Path, official: tuple, view: str
) -> None:
    kind, folder, ann_file, *_ = official
    dataset = kind(str(miniature / folder), view=view, gt_label=True)

    raw_records = json.loads((miniature / folder / ann_file).read_text())
    train = [raw for raw in raw_records if raw['split'].lower() == 'train']
    people = sorted({raw['id'] for raw in train})
    items = [dataset[index] for index in range(len(dataset))]
    assert dataset.num_classes == len(people)
    assert {item['gt_label'] for item in items} == set(range(len(people)))
    assert all(people[item['gt_label']] == item['pid'] for item in items)
    assert dataset.metainfo['classes'] == tuple(map(str, people))


def test_without_being_asked_there_is_no_gt_label(miniature: Path) -> None:
    dataset = CUHKPEDES(str(miniature / 'cuhk_pedes'))

    assert 'gt_label' not in dataset[0]
    assert 'classes' not in dataset.metainfo
    with pytest.raises(InputError, match='no classes without gt_label=True'):
        _ = dataset.num_classes


def test_gt_label_does_not_depend_on_what_is_skipped(
    miniature: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    records = json.loads((root / 'data_captions.json').read_text())
    first = min(raw['id'] for raw in records if raw['split'] == 'train')
    for raw in records:
        if raw['id'] == first:
            (root / 'imgs' / raw['img_path']).unlink()

    whole = RSTPReid(str(miniature / 'rstpreid'), gt_label=True)
    rest = RSTPReid(str(root), gt_label=True, unreadable='skip', lazy_init=True)

    assert rest.num_classes == whole.num_classes
    assert {rest[index]['gt_label'] for index in range(len(rest))} == set(
        range(1, whole.num_classes)
    )


@pytest.mark.parametrize('split', ['val', 'test'])
def test_gt_label_of_people_who_are_not_trained_on_is_refused(
    miniature: Path, split: str
) -> None:
    with pytest.raises(InputError, match=f"numbers the .*'{split}', whose"):
        RSTPReid(str(miniature / 'rstpreid'), split=split, gt_label=True)


def test_gt_label_of_images_without_ids_is_refused(miniature: Path) -> None:
    root = str(miniature / 'rstpreid/imgs')
    with pytest.raises(InputError, match='gt_label needs to know who is on each image'):
        PersonImageFolder(root, gt_label=True)


@pytest.mark.parametrize('folder', ['cuhk_pedes', 'rstpreid'])
def test_an_mmpretrain_classifier_trains_on_gt_label(
    miniature: Path, tmp_path: Path, folder: str
) -> None:
    kind = {'cuhk_pedes': CUHKPEDES, 'rstpreid': RSTPReid}[folder]
    num_classes = kind(str(miniature / folder), gt_label=True).num_classes
    dataset = dict(
        type=f'gckd_mm.{kind.__name__}',
        data_root=str(miniature / folder),
        view='images',
        gt_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(32, 64)),
            dict(type='PackInputs'),
        ],
    )
    runner = Runner(
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=num_classes,
                in_channels=32,
                loss=dict(type='CrossEntropyLoss'),
            ),
            data_preprocessor=dict(num_classes=num_classes, to_rgb=True),
        ),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=16,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dataset,
        ),
        train_cfg=dict(by_epoch=False, max_iters=5),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None, logger=None),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=f'classifier_of_{folder}',
        log_level='ERROR',
    )

    before = runner.model.head.fc.weight.clone()
    runner.train()

    moved = (runner.model.head.fc.weight - before).abs().amax(1)
    assert runner.iter == 5
    assert (moved > 0).all()  # every class is learned
    assert torch.isfinite(before + moved[:, None]).all()


def test_an_mmpretrain_head_reads_the_gt_label_that_we_pack(miniature: Path) -> None:
    pipeline = [dict(type='LoadPersonImage'), dict(type='PackPersonText')]
    dataset = CUHKPEDES(str(miniature / 'cuhk_pedes'), gt_label=True, pipeline=pipeline)
    samples = [dataset[index]['data_samples'] for index in (0, 7, len(dataset) - 1)]
    head = MODELS.build(
        dict(
            type='mmpretrain.LinearClsHead',
            num_classes=32,
            in_channels=8,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        )
    )
    feats = torch.randn(3, 8)

    labels = torch.tensor([dataset.get_data_info(i)['gt_label'] for i in (0, 7, -1)])
    expected = torch.nn.functional.cross_entropy(head.fc(feats), labels)
    torch.testing.assert_close(head.loss((feats,), samples)['loss'], expected)
