"""Check a dataset before anything is trained on it.

``tools/check_dataset.py`` prints what these functions return. None of them writes,
prints, or raises for a flaw of the data: a flaw is a :class:`Finding`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gckd_mm.datasets.image_hashes import (
    ImageHash,
    ImageScan,
    Match,
    Track,
    scan_images,
)
from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.datasets.records import SPLITS, PersonRecord, missing_images
from gckd_mm.errors import InputError

Severity = Literal['problem', 'warning', 'note']


class Counts(NamedTuple):
    """The size of a split; an image counts as often as the file lists it."""

    ids: int
    images: int
    captions: int


class Finding(NamedTuple):
    """Something that a user of the dataset should know.

    A problem makes results wrong or training stop; a warning makes results hard to
    compare; a note is known of the published data, too.
    """

    severity: Severity
    check: str
    message: str
    items: tuple[str, ...] = ()


class DatasetReport(NamedTuple):
    """What :func:`check_dataset` found."""

    dataset: str
    ann_file: str
    release: str
    counts: dict[str, Counts]
    published: dict[str, Counts]
    findings: tuple[Finding, ...]
    splits: dict[str, str]  # image -> its split
    scan: ImageScan


def check_dataset(
    dataset: PersonTextDataset,
    decode: bool = True,
    hash_files: bool = True,
    workers: int | None = None,
    track: Track = lambda items, total: items,
) -> DatasetReport:
    """Check the annotations and images of all splits.

    Args:
        dataset: Any split and view of it, with ``lazy_init=True``.
        decode: Whether to decode every image, which finds the damaged ones. Defaults
            to True.
        hash_files: Whether to read every file even if none is decoded. Defaults to
            True.
        workers: Number of threads. Defaults to the number of processors.
        track: Shows the progress. Defaults to no progress bar.

    Raises:
        MissingDataError: If the annotation file or the image folder is not there.
        InputError: If the annotation file is malformed or holds no record.
    """
    records = read_all_splits(dataset)
    image_root = dataset.data_prefix['img_path']
    counts = count_splits(records)
    published = {
        split: Counts(*numbers) for split, numbers in dataset.published_counts.items()
    }
    older_ids = getattr(dataset, 'older_ids', {})
    missing = missing_images(image_root, (record.image for record in records))
    scan = ImageScan({}, {})
    if decode or hash_files:
        absent = set(missing)
        present = dict.fromkeys(r.image for r in records if r.image not in absent)
        scan = scan_images(image_root, list(present), decode, workers, track)
    findings = [
        *count_findings(counts, published, older_ids),
        *record_findings(records),
        *file_findings(missing, scan, image_root),
        *duplicate_findings(records, scan.hashes),
    ]
    return DatasetReport(
        dataset=type(dataset).__name__,
        ann_file=dataset.ann_file,
        release=release_of(counts, published, older_ids),
        counts=counts,
        published=published,
        findings=tuple(findings),
        splits={record.image: record.split for record in records},
        scan=scan,
    )


def read_all_splits(dataset: PersonTextDataset) -> list[PersonRecord]:
    """Read the records of every split that the annotation file has.

    Raises:
        MissingDataError: If the annotation file or the image folder is not there.
        InputError: If the annotation file is malformed or holds no record.
    """
    records = dataset.load_all_records()
    if not records:
        raise InputError(
            f'{dataset.ann_file}: holds no record. Is the download complete?'
        )
    return records


def count_splits(records: Iterable[PersonRecord]) -> dict[str, Counts]:
    """Count the ids, images and captions of each split that has any."""
    members: dict[str, list[PersonRecord]] = defaultdict(list)
    for record in records:
        members[record.split].append(record)
    return {
        split: Counts(
            ids=len({record.pid for record in members[split]}),
            images=len(members[split]),
            captions=sum(len(record.captions) for record in members[split]),
        )
        for split in SPLITS
        if split in members
    }


def release_of(
    counts: Mapping[str, Counts],
    published: Mapping[str, Counts],
    older_ids: Mapping[str, int],
) -> Literal['published', 'older', 'unknown']:
    """Tell by its counts which release of a dataset a file is."""
    if published and counts == published:
        return 'published'
    if older_ids and older_ids == {split: c.ids for split, c in counts.items()}:
        return 'older'
    return 'unknown'


def count_findings(
    counts: Mapping[str, Counts],
    published: Mapping[str, Counts],
    older_ids: Mapping[str, int],
) -> list[Finding]:
    """Compare the counts with the published ones."""
    release = release_of(counts, published, older_ids)
    if release == 'published' or not published:
        return []
    if release == 'older':
        message = (
            f'this is the older release, with {_join_ids(older_ids)} ids; results '
            f'cannot be compared with those on the current one, which has '
            f'{_join_ids({split: c.ids for split, c in published.items()})}. Ask the '
            f"dataset's authors for the current annotation file"
        )
        return [Finding('warning', 'older release', message)]
    different = [s for s in SPLITS if counts.get(s) != published.get(s)]
    message = (
        f'the counts of {", ".join(different)} differ from the published ones: results '
        f'cannot be compared with published results'
    )
    return [Finding('warning', 'counts', message)]


def record_findings(records: Sequence[PersonRecord]) -> list[Finding]:
    """Look for records that contradict or repeat each other."""
    splits = _several((record.pid, record.split) for record in records)
    people = _several((record.image, record.pid) for record in records)
    homes = _several((record.image, record.split) for record in records)
    findings = [
        Finding('problem', check, f'{message}: {len(items)}', items)
        for check, message, items in (
            (
                'id in two splits',
                'ids in more than one split',
                tuple(f'id {pid}: {_join(found)}' for pid, found in splits.items()),
            ),
            (
                'image under two ids',
                'images listed under more than one id',
                tuple(f'{image}: ids {_join(pids)}' for image, pids in people.items()),
            ),
            (
                'image in two splits',
                'images listed in more than one split',
                tuple(f'{image}: {_join(found)}' for image, found in homes.items()),
            ),
        )
        if items
    ]
    captions = shared_captions(records)
    if captions:
        message = (
            f'captions shared by more than one id: {len(captions)}; whichever person '
            f'such a query finds, the other is a miss'
        )
        items = tuple(f'ids {_join(pids)}: {text}' for text, pids in captions.items())
        findings.append(Finding('note', 'shared captions', message, items))
    return findings


def shared_captions(records: Iterable[PersonRecord]) -> dict[str, list[int]]:
    """Map each caption of more than one id to the ids; case and spacing are ignored."""
    return _several(
        (' '.join(caption.lower().split()), record.pid)
        for record in records
        for caption in record.captions
    )


def file_findings(
    missing: Sequence[str], scan: ImageScan, image_root: str
) -> list[Finding]:
    """Report images that are not there or that cannot be read."""
    findings = []
    if missing:
        message = f'images missing below {image_root}: {len(missing)}'
        findings.append(Finding('problem', 'missing images', message, tuple(missing)))
    if scan.unreadable:
        message = f'damaged or unreadable images: {len(scan.unreadable)}'
        items = tuple(scan.unreadable.values())
        findings.append(Finding('problem', 'unreadable images', message, items))
    return findings


def duplicate_findings(
    records: Iterable[PersonRecord], hashes: Mapping[str, ImageHash]
) -> list[Finding]:
    """Look for copies of a file under another name, with another id or split."""
    homes = {record.image: (record.pid, record.split) for record in records}
    copies = _several((h.sha256, image) for image, h in hashes.items())
    items = [
        ' = '.join(
            f'{image} (id {homes[image][0]}, {homes[image][1]})' for image in same
        )
        for same in copies.values()
        if len({homes[image] for image in same}) > 1
    ]
    if not items:
        return []
    message = (
        f'images with a byte-identical copy under another id or split: {len(items)}'
    )
    return [Finding('warning', 'copied images', message, tuple(items))]


def overlap_findings(
    matches: Sequence[Match], report: DatasetReport, other: DatasetReport
) -> list[Finding]:
    """Report the overlap of two datasets, and what could not be compared."""
    findings = []
    if matches:
        identical = {match.first for match in matches if match.identical}
        alike = {match.first for match in matches} - identical
        message = (
            f'images that are in {other.dataset} as well: '
            f'{len(identical) + len(alike)} ({len(identical)} byte for byte, '
            f'{len(alike)} look the same); the two are not independent domains'
        )
        items = tuple(
            f'{match.first} ({report.splits[match.first]}) '
            f'{"=" if match.identical else "~"} '
            f'{match.second} ({other.splits[match.second]})'
            for match in matches
        )
        findings.append(Finding('warning', 'overlap', message, items))
    left_out = tuple(image for image in other.splits if image not in other.scan.hashes)
    if left_out:
        message = f'images of {other.dataset} not compared: {len(left_out)}'
        findings.append(Finding('warning', 'not compared', message, left_out))
    return findings


def overlap_by_split(
    matches: Iterable[Match], report: DatasetReport, other: DatasetReport
) -> dict[tuple[str, str], tuple[int, int]]:
    """Count the images of the first dataset that are in the other, split by split.

    Returns:
        (split of the first, split of the other) -> (images that are in it byte for
        byte, further images that look the same).
    """
    identical: dict[tuple[str, str], set[str]] = defaultdict(set)
    both: dict[tuple[str, str], set[str]] = defaultdict(set)
    for match in matches:
        splits = report.splits[match.first], other.splits[match.second]
        both[splits].add(match.first)
        if match.identical:
            identical[splits].add(match.first)
    order = sorted(both, key=lambda pair: tuple(map(SPLITS.index, pair)))
    return {
        pair: (len(identical[pair]), len(both[pair] - identical[pair]))
        for pair in order
    }


def _several(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, list[Any]]:
    """Return the keys of more than one value, with these in the order they come in."""
    gathered: dict[Any, dict[Any, None]] = defaultdict(dict)
    for key, value in pairs:
        gathered[key][value] = None
    return {key: list(values) for key, values in gathered.items() if len(values) > 1}


def _join_ids(ids: Mapping[str, int]) -> str:
    return '/'.join(str(ids[split]) for split in SPLITS if split in ids)


def _join(values: Iterable[Any]) -> str:
    return ', '.join(map(str, values))
