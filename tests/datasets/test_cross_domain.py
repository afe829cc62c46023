"""The leak test: no id and no pairing of the target reaches a training batch."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader

from gckd_mm.datasets import CrossDomainDataset, Draw, RSTPReid, collate_person_text
from gckd_mm.datasets.samplers import CrossDomainSampler
from gckd_mm.errors import InputError, MissingDataError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config.fromfile(ROOT / 'configs/_base_/datasets/person_text_64x32.py')
BATCH_SIZE = 16
ANN_FILE = 'data_captions.json'


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def build(
    miniature: Path,
    target_root: Path | None = None,
    source: dict | None = None,
    pipeline: list | None = None,
    **kwargs: Any,
) -> CrossDomainDataset:
    """CUHK-PEDES beside an unlabelled RSTPReid, augmented as the configs do."""
    pipeline = CONFIG.train_pipeline if pipeline is None else pipeline
    root = target_root or miniature / 'rstpreid'
    return CrossDomainDataset(
        source={
            'type': 'CUHKPEDES',
            'data_root': str(miniature / 'cuhk_pedes'),
            'pipeline': pipeline,
            **(source or {}),
        },
        target=dict(type='RSTPReid', data_root=str(root), pipeline=pipeline),
        **kwargs,
    )


def loader(dataset: CrossDomainDataset, num_workers: int = 0) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        sampler=CrossDomainSampler(dataset, seed=3),
        num_workers=num_workers,
        collate_fn=collate_person_text,
    )


def leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Every (key path, value) of a nested item or batch."""
    if isinstance(node, BaseDataElement):  # its keys are in no order
        node = {name: node.get(name) for name in sorted(node.all_keys())}
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f'{key}/{name}')
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from leaves(value, f'{key}/{number}')
    elif isinstance(node, torch.Tensor):
        yield key, (tuple(node.shape), node.dtype, node.numpy().tobytes())
    else:
        yield key, node


def batches(dataset: CrossDomainDataset, number: int, num_workers: int = 0) -> list:
    return [
        list(leaves(batch))
        for batch in itertools.islice(loader(dataset, num_workers), number)
    ]


def read(root: Path) -> list[dict]:
    return json.loads((root / ANN_FILE).read_text(encoding='utf-8'))


def permute_labels(root: Path) -> None:
    """Permute ids and captions over the images of each split, and the records."""
    rng = random.Random(0)
    records = read(root)
    for split in ('train', 'val', 'test'):
        chosen = [record for record in records if record['split'] == split]
        pids = [record['id'] for record in chosen]
        captions = [caption for record in chosen for caption in record['captions']]
        rng.shuffle(pids)
        rng.shuffle(captions)
        # At least one for each image, and the rest anywhere.
        for record, pid in zip(chosen, pids, strict=True):
            record['id'] = pid
            record['captions'] = [captions.pop()]
        for caption in captions:
            rng.choice(chosen)['captions'].append(caption)
    rng.shuffle(records)
    (root / ANN_FILE).write_text(json.dumps(records), encoding='utf-8')


@pytest.fixture(scope='module')
def permuted(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target with labels that mean nothing, in another folder."""
    folder = tmp_path_factory.mktemp('elsewhere') / 'another_name'
    shutil.copytree(miniature / 'rstpreid', folder)
    permute_labels(folder)
    return folder


def facts(root: Path) -> tuple[dict, dict]:
    """Image -> id, and image -> captions."""
    records = read(root)
    return (
        {record['img_path']: record['id'] for record in records},
        {record['img_path']: record['captions'] for record in records},
    )


def test_the_permutation_spares_only_what_is_public(
    miniature: Path, permuted: Path
) -> None:
    # Without this the leak test below could pass on two equal files.
    (ids, captions), (other_ids, other_captions) = (
        facts(miniature / 'rstpreid'),
        facts(permuted),
    )

    assert ids.keys() == other_ids.keys()
    assert sum(ids[image] != other_ids[image] for image in ids) > len(ids) * 0.8
    differing = sum(captions[image] != other_captions[image] for image in ids)
    assert differing > len(ids) * 0.8
    assert list(ids) != list(other_ids)
    assert sorted(itertools.chain(*captions.values())) == sorted(
        itertools.chain(*other_captions.values())
    )


@pytest.mark.parametrize('gt_label', [False, True])
def test_permuting_the_targets_labels_changes_no_batch(
    miniature: Path, permuted: Path, gt_label: bool
) -> None:
    source = dict(gt_label=gt_label)
    original = build(miniature, source=source)
    blind = build(miniature, permuted, source=source)
    # Two passes over the longest of the three streams.
    longest = max(
        len(original), original.num_target_images, original.num_target_captions
    )
    number = 2 * longest // BATCH_SIZE + 1

    for one, other in zip(
        itertools.islice(loader(original), number),
        itertools.islice(loader(blind), number),
        strict=True,
    ):
        assert list(leaves(one)) == list(leaves(other))
    # The vocabulary is fitted on these.
    assert original.captions() == blind.captions()
    assert original.metainfo == blind.metainfo


def test_moving_the_targets_folder_changes_no_batch(
    miniature: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(miniature / 'rstpreid', tmp_path / 'zzz' / 'moved')

    assert batches(build(miniature), 4) == batches(build(miniature, moved), 4)


def test_workers_change_no_batch(miniature: Path) -> None:
    dataset = build(miniature)

    assert batches(dataset, 6) == batches(dataset, 6, num_workers=2)


@pytest.mark.parametrize('gt_label', [False, True])
def test_the_target_part_holds_no_label_and_no_path(
    miniature: Path, gt_label: bool
) -> None:
    dataset = build(miniature, source=dict(gt_label=gt_label))
    names = {
        part
        for record in read(miniature / 'rstpreid')
        for part in (record['img_path'], Path(record['img_path']).stem)
    }

    for draw in itertools.islice(CrossDomainSampler(dataset, seed=0), 40):
        item = dataset[draw]
        target = dict(leaves(item['target']))
        assert set(target) == {
            *('/inputs/images', '/inputs/captions'),
            *('/image_index', '/caption_index'),
        }
        _, image, caption = draw.index
        assert target['/image_index'] == image
        assert target['/caption_index'] == caption
        texts = [value for value in target.values() if isinstance(value, str)]
        assert len(texts) == 1
        assert not any(name in text for name in names for text in texts)
        assert item['data_samples'].pid == dataset.source.pids[draw.index[0]]
        assert ('gt_label' in item['data_samples']) == gt_label
        assert set(item) == {'inputs', 'data_samples', 'target'}


def test_a_pipeline_that_keeps_all_is_still_cut_down(miniature: Path) -> None:
    # Whatever a pipeline packs beside its inputs, a path or an id, is left behind.
    def pack_all(results: dict) -> dict:
        return {'inputs': {'images': torch.zeros(1)}, 'data_samples': dict(results)}

    dataset = build(miniature, pipeline=[pack_all])

    item = dataset[Draw((0, 1, 2), seed=0)]

    assert set(dict(leaves(item['target']))) == {
        *('/inputs/images', '/image_index', '/caption_index')
    }


def test_the_pipeline_of_the_target_is_given_no_id(miniature: Path) -> None:
    seen = []

    def spy(results: dict) -> dict:
        seen.append(set(results))
        return {'inputs': {}, 'data_samples': None}

    dataset = build(miniature, source=dict(gt_label=True), pipeline=[spy])
    _ = dataset[Draw((0, 1, 2), seed=0)]

    assert seen == [
        {'img_path', 'caption', 'pid', 'gt_label', 'sample_idx'},
        {'img_path', 'caption', 'sample_idx'},
    ]


def test_every_image_and_caption_of_the_train_split_has_an_index(
    miniature: Path,
) -> None:
    def unpacked(results: dict) -> dict:
        return {'inputs': results, 'data_samples': None}

    dataset = build(miniature, pipeline=[unpacked])
    train = [raw for raw in read(miniature / 'rstpreid') if raw['split'] == 'train']

    images = [
        Path(dataset[Draw((0, index, 0), 0)]['target']['inputs']['img_path']).name
        for index in range(dataset.num_target_images)
    ]
    captions = [
        dataset[Draw((0, 0, index), 0)]['target']['inputs']['caption']
        for index in range(dataset.num_target_captions)
    ]

    assert sorted(images) == sorted(raw['img_path'] for raw in train)
    assert sorted(captions) == sorted(
        caption for raw in train for caption in raw['captions']
    )
    # The order of the files, which are named by id, would tell who is who.
    assert images != sorted(images)
    neighbours = [one[:4] == two[:4] for one, two in itertools.pairwise(images)]
    assert sum(neighbours) < len(neighbours) / 4


def test_an_image_that_is_listed_twice_is_drawn_once(
    miniature: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    records = read(root)
    (root / ANN_FILE).write_text(json.dumps([records[0], *records]))

    twice, once = build(miniature, root), build(miniature)

    assert twice.num_target_images == once.num_target_images
    assert twice.num_target_captions == once.num_target_captions + 2


def test_target_images_alone(miniature: Path) -> None:
    dataset = build(miniature, target_captions=False)

    assert dataset.num_target_captions == 0
    assert dataset.captions() == dataset.source.captions()
    for draw in itertools.islice(CrossDomainSampler(dataset, seed=0), 20):
        assert draw.index[2] is None
        assert set(dict(leaves(dataset[draw]['target']))) == {
            *('/inputs/images', '/image_index')
        }


def test_an_item_of_the_source_stage_is_the_sources_alone(miniature: Path) -> None:
    dataset = build(miniature)

    for index in range(20):
        item = dataset[Draw((index, None, None), seed=index)]
        assert list(leaves(item)) == list(leaves(dataset.source[Draw(index, index)]))
        beside = dataset[Draw((index, 0, 0), seed=index)]
        del beside['target']
        assert list(leaves(item)) == list(leaves(beside))


def test_the_target_costs_nothing_in_the_source_stage(miniature: Path) -> None:
    seen = []

    def spy(results: dict) -> dict:
        seen.append(results['img_path'])
        return {'inputs': {}, 'data_samples': None}

    dataset = build(miniature, pipeline=[spy])
    sampler = CrossDomainSampler(dataset, 0, None, source_iters=2, batch_size=3)
    batches = [[dataset[draw] for draw in itertools.islice(sampler, 6)]]
    assert len(seen) == 6  # one image a draw, the source's
    assert not any('rstpreid' in path for path in seen)

    sampler.skip(6)
    batches.append([dataset[draw] for draw in itertools.islice(sampler, 3)])
    assert len(seen) == 6 + 2 * 3
    for batch, keys in zip(batches, (set(), {'target'}), strict=True):
        collated = collate_person_text(batch)
        assert set(collated) == {'inputs', 'data_samples'} | keys


def test_target_images_are_the_same_with_and_without_captions(miniature: Path) -> None:
    def images(dataset: CrossDomainDataset) -> list:
        return [
            (key, value)
            for batch in batches(dataset, 3)
            for key, value in batch
            if key.startswith(('/target/inputs/images', '/target/image_index'))
        ]

    assert images(build(miniature)) == images(build(miniature, target_captions=False))


def test_captions_are_the_sources_and_the_targets(miniature: Path) -> None:
    dataset = build(miniature)

    train = [raw for raw in read(miniature / 'rstpreid') if raw['split'] == 'train']
    assert sorted(dataset.captions()) == sorted(
        dataset.source.captions()
        + [caption for raw in train for caption in raw['captions']]
    )


@pytest.mark.parametrize('view', ['images', 'captions'])
def test_a_source_without_pairs_is_refused(miniature: Path, view: str) -> None:
    with pytest.raises(InputError, match=f"source needs view='pairs', got '{view}'"):
        build(miniature, source=dict(view=view))


def test_a_missing_target_is_told_before_training(
    miniature: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingDataError, match='RSTPReid: missing annotation file'):
        build(miniature, tmp_path / 'nowhere')


@pytest.mark.parametrize('index', [0, 'a', (0, 1, 2)])
def test_an_index_that_is_no_draw_names_the_sampler(
    miniature: Path, index: Any
) -> None:
    with pytest.raises(TypeError, match='type="CrossDomainSampler"'):
        build(miniature)[index]


def test_the_draw_of_another_sampler_names_the_sampler(miniature: Path) -> None:
    # What PairedSampler yields: the default of the base schedule, easily left as it is.
    with pytest.raises(TypeError, match='type="CrossDomainSampler"'):
        build(miniature)[Draw(0, seed=0)]


def test_its_length_is_a_pass_over_the_source(miniature: Path) -> None:
    dataset = build(miniature)

    assert len(dataset) == len(dataset.source) == len(CrossDomainSampler(dataset, 0))


def test_indices_of_a_target_are_refused(miniature: Path) -> None:
    source = dict(type='CUHKPEDES', data_root=str(miniature / 'cuhk_pedes'))
    target = dict(type='RSTPReid', data_root=str(miniature / 'rstpreid'), indices=10)
    with pytest.raises(InputError, match='indices would choose target samples'):
        CrossDomainDataset(source, target)


def test_a_missing_target_image_is_found_whatever_its_view(
    miniature: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'rstpreid'
    shutil.copytree(miniature / 'rstpreid', root)
    sorted((root / 'imgs').iterdir())[0].unlink()
    source = dict(type='CUHKPEDES', data_root=str(miniature / 'cuhk_pedes'))
    target = dict(type='RSTPReid', data_root=str(root), view='captions')
    with pytest.raises(MissingDataError, match='missing 1 images'):
        CrossDomainDataset(source, target)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_no_other_split_of_the_target_than_train(miniature: Path, split: str) -> None:
    source = dict(type='CUHKPEDES', data_root=str(miniature / 'cuhk_pedes'))
    target = dict(type='RSTPReid', data_root=str(miniature / 'rstpreid'), split=split)
    with pytest.raises(InputError, match='must not be seen in training'):
        CrossDomainDataset(source, target)


@pytest.mark.parametrize('built', [False, True])
def test_gt_label_of_the_target_is_refused(miniature: Path, built: bool) -> None:
    source = dict(type='CUHKPEDES', data_root=str(miniature / 'cuhk_pedes'))
    target = dict(data_root=str(miniature / 'rstpreid'), gt_label=True)
    with pytest.raises(InputError, match='gt_label would show who is on the images'):
        CrossDomainDataset(
            source, RSTPReid(**target) if built else dict(target, type='RSTPReid')
        )
