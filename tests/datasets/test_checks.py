from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from gckd_mm.datasets import CUHKPEDES, ICFGPEDES, RSTPReid
from gckd_mm.datasets.checks import (
    Counts,
    DatasetReport,
    Finding,
    check_dataset,
    overlap_by_split,
    overlap_findings,
    shared_captions,
)
from gckd_mm.datasets.image_hashes import find_overlap
from gckd_mm.datasets.records import PersonRecord
from gckd_mm.errors import InputError, MissingDataError
from tests.datasets.test_image_hashes import reencode
from tests.miniature import SIZES, write_dataset

TYPES = {'cuhk_pedes': CUHKPEDES, 'icfg_pedes': ICFGPEDES, 'rstpreid': RSTPReid}


@pytest.fixture
def rstpreid(tmp_path: Path) -> Path:
    return write_dataset(tmp_path, 'rstpreid')


def check(folder: Path, dataset_type: type = RSTPReid, **kwargs: Any) -> DatasetReport:
    dataset = dataset_type(str(folder), check_images=False, lazy_init=True)
    return check_dataset(dataset, **kwargs)


def found(report: DatasetReport) -> dict[str, Finding]:
    findings = {finding.check: finding for finding in report.findings}
    assert len(findings) == len(report.findings)
    return findings


def edit(folder: Path, change: Callable[[list[dict]], None]) -> list[dict]:
    path = folder / 'data_captions.json'
    records = json.loads(path.read_text(encoding='utf-8'))
    change(records)
    path.write_text(json.dumps(records), encoding='utf-8')
    return records


@pytest.mark.parametrize('domain', SIZES)
def test_a_sound_dataset_has_its_sizes_and_no_problem(
    domain: str, tmp_path: Path
) -> None:
    report = check(write_dataset(tmp_path, domain), TYPES[domain])
    for split, (ids, images) in SIZES[domain].items():
        captions = ids * images * (1 if domain == 'icfg_pedes' else 2)
        assert report.counts[split] == Counts(ids, ids * images, captions)
    assert set(report.counts) == set(SIZES[domain])
    assert len(report.scan.hashes) == sum(c.images for c in report.counts.values())
    assert {f.check for f in report.findings if f.severity != 'note'} == {'counts'}


def test_the_published_counts_are_recognised(
    rstpreid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {split: tuple(c) for split, c in check(rstpreid).counts.items()}
    monkeypatch.setattr(RSTPReid, 'published_counts', counts)
    report = check(rstpreid, decode=False)
    assert report.release == 'published'
    assert 'counts' not in found(report)


@pytest.mark.parametrize('place', range(3))
def test_one_count_off_in_one_split_is_named(
    place: int, rstpreid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {split: list(c) for split, c in check(rstpreid).counts.items()}
    counts['val'][place] += 1
    monkeypatch.setattr(RSTPReid, 'published_counts', counts)
    report = check(rstpreid, decode=False)
    assert report.release == 'unknown'
    assert found(report)['counts'].severity == 'warning'
    assert 'the counts of val differ' in found(report)['counts'].message


def test_the_older_release_is_told_by_its_ids(
    rstpreid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {split: size for split, (size, _) in SIZES['rstpreid'].items()}
    monkeypatch.setattr(RSTPReid, 'older_ids', ids)
    report = check(rstpreid, decode=False)
    assert report.release == 'older'
    older = found(report)['older release']
    assert older.severity == 'warning'
    assert '24/8/16' in older.message
    assert '3701/200/200' in older.message


def test_missing_images_are_listed_and_not_called_unreadable(rstpreid: Path) -> None:
    for name in ('0000_c1.png', '0030_c4.png'):
        (rstpreid / 'imgs' / name).unlink()
    findings = found(check(rstpreid))
    assert findings['missing images'].severity == 'problem'
    assert findings['missing images'].items == ('0000_c1.png', '0030_c4.png')
    assert 'unreadable images' not in findings


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('kept', [0.0, 0.5, 0.95])
def test_truncated_images_are_found_among_good_ones(
    suffix: str, kept: float, rstpreid: Path
) -> None:
    whole = cv2.imread(str(rstpreid / 'imgs' / '0007_c2.png'))
    data = cv2.imencode(suffix, whole)[1].tobytes()
    # The name stays: what a file holds decides, and not its suffix.
    cut = rstpreid / 'imgs' / '0007_c2.png'
    cut.write_bytes(data[: int(len(data) * kept)])
    report = check(rstpreid)
    assert set(report.scan.unreadable) == {'0007_c2.png'}
    assert len(report.scan.hashes) == sum(c.images for c in report.counts.values()) - 1
    finding = found(report)['unreadable images']
    assert finding.severity == 'problem'
    (item,) = finding.items
    assert str(cut) in item


def test_without_decoding_the_files_are_hashed_or_left_alone(rstpreid: Path) -> None:
    (rstpreid / 'imgs' / '0007_c2.png').write_bytes(b'not an image')
    hashed = check(rstpreid, decode=False)
    assert 'unreadable images' not in found(hashed)
    assert hashed.scan.hashes['0007_c2.png'].difference is None
    assert not check(rstpreid, decode=False, hash_files=False).scan.hashes


def test_progress_counts_every_image_once(rstpreid: Path) -> None:
    totals = []

    def track(items: Any, total: int) -> Any:
        items = list(items)
        totals.append((len(items), total))
        return items

    report = check(rstpreid, track=track)
    num_images = sum(c.images for c in report.counts.values())
    assert totals == [(num_images, num_images)]


def test_shared_captions_are_those_of_different_people() -> None:
    def record(pid: int, *captions: str) -> PersonRecord:
        return PersonRecord(pid, f'{pid}.png', captions, 'train')

    records = [
        record(1, 'A red coat.', 'Twice.'),
        record(1, 'Twice.'),
        record(2, 'a  red coat. ', 'Alone.'),
        record(5, 'A red coat.'),
    ]
    assert shared_captions(records) == {'a red coat.': [1, 2, 5]}


def test_shared_captions_are_a_note_with_examples(rstpreid: Path) -> None:
    before = found(check(rstpreid, decode=False)).get('shared captions')

    def share(records: list[dict]) -> None:
        for number in (0, -1):
            records[number]['captions'][0] = 'Somebody 走 past [the] shop.'

    edit(rstpreid, share)
    after = found(check(rstpreid, decode=False))['shared captions']
    assert after.severity == 'note'
    assert len(after.items) == (len(before.items) if before else 0) + 1
    assert 'ids 0, 47: somebody 走 past [the] shop.' in after.items


def test_an_id_in_two_splits_is_a_problem(rstpreid: Path) -> None:
    edit(rstpreid, lambda records: records[-1].update(id=3))
    finding = found(check(rstpreid, decode=False))['id in two splits']
    assert finding.severity == 'problem'
    assert finding.items == ('id 3: train, test',)


def test_an_image_under_two_ids_is_a_problem(rstpreid: Path) -> None:
    edit(rstpreid, lambda records: records[5].update(img_path='0000_c0.png'))
    findings = found(check(rstpreid, decode=False))
    assert findings['image under two ids'].severity == 'problem'
    assert findings['image under two ids'].items == ('0000_c0.png: ids 0, 1',)
    assert 'image in two splits' not in findings
    assert 'copied images' not in findings


def test_an_image_in_two_splits_is_a_problem(rstpreid: Path) -> None:
    edit(rstpreid, lambda records: records[-1].update(img_path='0000_c0.png'))
    finding = found(check(rstpreid, decode=False))['image in two splits']
    assert finding.severity == 'problem'
    assert finding.items == ('0000_c0.png: train, test',)


def test_a_copy_under_another_name_in_another_split_is_found(rstpreid: Path) -> None:
    images = rstpreid / 'imgs'
    # A copy beside its original, of the same id and split, is harmless.
    shutil.copyfile(images / '0001_c0.png', images / '0001_c1.png')
    assert 'copied images' not in found(check(rstpreid))
    shutil.copyfile(images / '0000_c0.png', images / '0047_c4.png')
    finding = found(check(rstpreid))['copied images']
    assert finding.severity == 'warning'
    assert finding.items == ('0000_c0.png (id 0, train) = 0047_c4.png (id 47, test)',)


def test_missing_and_malformed_annotations_are_refused(rstpreid: Path) -> None:
    annotations = rstpreid / 'data_captions.json'
    annotations.write_text('[]')
    with pytest.raises(InputError, match='holds no record'):
        check(rstpreid)
    annotations.write_text('[{"id": 1')
    with pytest.raises(InputError, match='not a JSON file'):
        check(rstpreid)
    annotations.unlink()
    with pytest.raises(MissingDataError, match='NjtechCVLab'):
        check(rstpreid)


def test_overlap_finds_identical_and_reencoded_copies_and_nothing_else(
    rstpreid: Path, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path, 'cuhk_pedes')
    shutil.copyfile(rstpreid / 'imgs' / '0000_c0.png', other / 'imgs/cam_a/0001_c0.png')
    reencode(
        rstpreid / 'imgs' / '0040_c3.png', other / 'imgs/cam_a/0041_c1.png', quality=85
    )
    first, second = check(rstpreid), check(other, CUHKPEDES)
    matches = find_overlap(first.scan.hashes, second.scan.hashes)
    assert matches == [
        ('0000_c0.png', 'cam_a/0001_c0.png', True),
        ('0040_c3.png', 'cam_a/0041_c1.png', False),
    ]
    assert overlap_by_split(matches, first, second) == {
        ('train', 'train'): (1, 0),
        ('test', 'test'): (0, 1),
    }
    (finding,) = overlap_findings(matches, first, second)
    assert finding.severity == 'warning'
    assert ': 2 (1 byte for byte, 1 look the same)' in finding.message
    assert finding.items == (
        '0000_c0.png (train) = cam_a/0001_c0.png (train)',
        '0040_c3.png (test) ~ cam_a/0041_c1.png (test)',
    )


def test_images_of_the_other_dataset_that_were_not_compared_are_listed(
    rstpreid: Path, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path, 'cuhk_pedes')
    (other / 'imgs/cam_a/0001_c0.png').unlink()
    (other / 'imgs/cam_a/0002_c0.png').write_bytes(b'')
    (finding,) = overlap_findings([], check(rstpreid), check(other, CUHKPEDES))
    assert finding.check == 'not compared'
    assert finding.items == ('cam_a/0001_c0.png', 'cam_a/0002_c0.png')
