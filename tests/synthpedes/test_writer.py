"""A drawing is whole, the same however it was made, and never written over others."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.datasets import CUHKPEDES, ICFGPEDES, PersonTextDataset, RSTPReid
from gckd_mm.datasets.checks import check_dataset
from gckd_mm.errors import InputError
from gckd_mm.synthpedes.domain import Shot, Sizes, SynthDomain
from gckd_mm.synthpedes.writer import (
    ANNOTATION_FILES,
    file_name,
    is_complete,
    write_domain,
)

SIZES = Sizes(train=3, val=2, test=2, images=2)
LOADERS: dict[str, type[PersonTextDataset]] = {
    'street': CUHKPEDES,
    'mall': RSTPReid,
    'campus': ICFGPEDES,
}
on_linux = pytest.mark.skipif(sys.platform != 'linux', reason='processes are forked')


def new_domain(name: str = 'street', world: int = 0) -> SynthDomain:
    return SynthDomain(name, world, SIZES._replace(val=0 if name == 'campus' else 2))


class FailingDomain(SynthDomain):
    """Fails at its fifth image, in whichever process that is."""

    error: Exception = ValueError('no colours left')

    def draw_image(self, shot: Shot) -> np.ndarray:
        if self.shots().index(shot) == 4:
            raise self.error
        return super().draw_image(shot)


def failing_with(error: Exception) -> FailingDomain:
    domain = FailingDomain('street', 0, SIZES)
    domain.error = error
    return domain


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / 'synthpedes.json').read_text())


def change_description(folder: Path, **changes: Any) -> None:
    path = folder / 'synthpedes.json'
    path.write_text(json.dumps({**description(folder), **changes}))


@pytest.fixture(scope='module')
def street(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a street holds, drawn in one go by one process."""
    folder = tmp_path_factory.mktemp('street')
    return contents(write_domain(new_domain(), folder, processes=1))


@pytest.mark.parametrize('name', LOADERS)
def test_the_loader_of_the_real_dataset_reads_it(name: str, tmp_path: Path) -> None:
    domain = new_domain(name)
    folder = str(write_domain(domain, tmp_path / name, processes=1))
    shots = domain.shots()
    for split in ('train', 'val', 'test'):
        drawn = [shot for shot in shots if shot.split == split]
        if not drawn:
            assert (name, split) == ('campus', 'val')
            continue
        captions = [text for shot in drawn for text in domain.write_captions(shot)]
        images, pairs, queries = (
            LOADERS[name](data_root=folder, split=split, view=view)
            for view in ('images', 'pairs', 'captions')
        )
        assert images.pids.tolist() == [shot.pid for shot in drawn]
        assert [images[i]['img_path'] for i in range(len(images))] == [
            os.path.join(folder, 'imgs', file_name(domain, shot)) for shot in drawn
        ]
        assert [queries[i]['caption'] for i in range(len(queries))] == captions
        assert [pairs[i]['caption'] for i in range(len(pairs))] == captions
    report = check_dataset(LOADERS[name](data_root=folder, lazy_init=True))
    assert [f.message for f in report.findings if f.severity == 'problem'] == []
    assert len(report.scan.hashes) == len(shots)


def test_the_records_are_those_of_the_real_datasets(tmp_path: Path) -> None:
    fields = {}
    for name in LOADERS:
        folder = write_domain(new_domain(name), tmp_path / name, processes=1)
        annotations = ANNOTATION_FILES[LOADERS[name].__name__]
        records = json.loads((folder / annotations).read_text())
        fields[name] = set(records[0])
        assert records[0]['id'] == new_domain(name).shots()[0].pid
        assert len(records[0]['captions']) == (1 if name == 'campus' else 2)
    pedes = {'split', 'captions', 'file_path', 'processed_tokens', 'id'}
    assert fields == {
        'street': pedes,
        'mall': {'id', 'img_path', 'captions', 'split'},
        'campus': pedes,
    }


def test_tokens_are_the_words_without_punctuation(street: dict[str, bytes]) -> None:
    for record in json.loads(street['reid_raw.json']):
        for caption, tokens in zip(
            record['captions'], record['processed_tokens'], strict=True
        ):
            letters = re.sub(r'[\W_]', '', caption.lower())
            assert re.sub(r'\W', '', ''.join(tokens)) == letters
            assert all(token[0].isalnum() and token[-1].isalnum() for token in tokens)


def test_images_are_what_the_camera_saw(tmp_path: Path) -> None:
    domain = new_domain()
    folder = write_domain(domain, tmp_path, processes=1)
    shot = domain.shots()[5]
    with Image.open(folder / 'imgs' / file_name(domain, shot)) as image:
        assert image.format == 'JPEG'
        assert all(layer[1:3] == (1, 1) for layer in image.layer)  # no subsampling
        pixels = np.asarray(image)
    assert pixels.shape == (160, 80, 3)
    difference = pixels.astype(int) - domain.draw_image(shot).astype(int)
    assert np.abs(difference).mean() < 8


def test_two_processes_write_what_one_writes(
    street: dict[str, bytes], tmp_path: Path
) -> None:
    assert contents(write_domain(new_domain(), tmp_path, processes=2)) == street
    assert json.loads(street['synthpedes.json'])['complete'] is True


def test_progress_counts_the_images(tmp_path: Path) -> None:
    seen = []

    def track(items: Iterable[Any], total: int) -> Iterable[Any]:
        items = list(items)
        seen.append((len(items), total))
        return items

    write_domain(new_domain(), tmp_path, processes=1, track=track)
    (tmp_path / 'imgs' / 'cam_a' / '0001_0.jpg').unlink()
    write_domain(new_domain(), tmp_path, processes=1, track=track)
    assert seen == [(14, 14), (1, 1)]


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(
    'error', [ValueError('no colours left'), KeyError('no colours left')]
)
def test_an_error_ends_the_drawing_and_the_next_call_continues_it(
    processes: int, error: Exception, street: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(type(error), match='no colours left'):
        write_domain(failing_with(error), tmp_path, processes)
    left = contents(tmp_path)
    assert description(tmp_path)['complete'] is False
    assert not is_complete(new_domain(), tmp_path)
    assert not any(name.endswith('.partial') for name in left)
    kept = tmp_path / 'imgs' / 'cam_a' / '0001_0.jpg'
    written = kept.stat().st_mtime_ns
    assert contents(write_domain(new_domain(), tmp_path, processes)) == street
    assert kept.stat().st_mtime_ns == written


@on_linux
def test_errors_that_pickle_cannot_carry_are_told(tmp_path: Path) -> None:
    class LocalError(Exception):
        pass

    with pytest.raises(RuntimeError, match='LocalError: no colours left'):
        write_domain(failing_with(LocalError('no colours left')), tmp_path, processes=2)


class SlowDomain(SynthDomain):
    """Draws four images at once, then leaves the ids of its processes and waits."""

    pids = Path()
    seconds = 0.0

    def draw_image(self, shot: Shot) -> np.ndarray:
        if self.shots().index(shot) >= 4:
            (self.pids / str(os.getpid())).touch()
            time.sleep(self.seconds)
        return super().draw_image(shot)


@contextmanager
def slow_drawing(folder: Path, seconds: float) -> Iterator[tuple[Any, list[int]]]:
    """Draw slowly in a process with two processes of its own, all in one group."""
    pids = folder.with_name('pids')
    pids.mkdir()

    def draw() -> None:
        os.setsid()
        # Tests that a shell started in the background have it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        domain = SlowDomain('street', 0, SIZES)
        domain.pids, domain.seconds = pids, seconds
        with open(folder.with_name('errors.txt'), 'w') as file, redirect_stderr(file):
            try:
                write_domain(domain, folder, processes=2)
            except KeyboardInterrupt:
                sys.exit(130)

    parent = multiprocessing.get_context('fork').Process(target=draw)
    parent.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(pids.iterdir())) < 2:
            assert time.monotonic() < deadline, 'the drawing did not start'
            time.sleep(0.02)
        yield parent, [int(path.name) for path in pids.iterdir()]
    finally:
        parent.kill()
        parent.join()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return False
    return state != 'Z'


def wait_for_the_end(workers: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, 'processes outlive their parent'
        time.sleep(0.02)


@on_linux
@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGKILL])
def test_a_killed_drawing_is_continued(
    sent: signal.Signals, street: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / 'street'
    with slow_drawing(folder, seconds=120) as (parent, workers):
        os.killpg(parent.pid, sent)
        parent.join(30)
        assert parent.exitcode == (-sent if sent == signal.SIGKILL else 130)
        wait_for_the_end(workers)
    assert (tmp_path / 'errors.txt').read_text() == ''
    assert description(folder)['complete'] is False
    assert len(list(folder.rglob('*.jpg'))) == 4
    partial = folder / 'imgs' / 'cam_a' / '.0003_0.jpg.123.partial'
    partial.write_bytes(b'what a kill leaves')
    (folder / 'imgs' / 'cam_a' / '0001_1.jpg').write_bytes(b'')  # what power cuts leave
    assert contents(write_domain(new_domain(), folder, processes=1)) == street


@on_linux
def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / 'street'
    with slow_drawing(folder, seconds=0.3) as (parent, workers):
        parent.kill()
        wait_for_the_end(workers)
    assert len(list(folder.rglob('*.jpg'))) < 14


@on_linux
def test_a_process_that_is_killed_ends_the_drawing(tmp_path: Path) -> None:
    class KilledDomain(SynthDomain):
        def draw_image(self, shot: Shot) -> np.ndarray:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(InputError, match=r'exit code -9.*fewer processes'):
        write_domain(KilledDomain('street', 0, SIZES), tmp_path, processes=2)


def test_a_whole_drawing_is_left_alone(
    street: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write_domain(new_domain(), tmp_path, processes=1)
    assert is_complete(new_domain(), folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    write_domain(failing_with(ValueError('draws')), folder, processes=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == times
    assert contents(folder) == street


@pytest.mark.parametrize('name', ['imgs/cam_a/0002_1.jpg', 'reid_raw.json'])
def test_what_was_deleted_is_drawn_again(
    name: str, street: dict[str, bytes], tmp_path: Path
) -> None:
    write_domain(new_domain(), tmp_path, processes=1)
    (tmp_path / name).unlink()
    assert not is_complete(new_domain(), tmp_path)
    assert contents(write_domain(new_domain(), tmp_path, processes=1)) == street


def test_changed_annotations_are_not_written_over(tmp_path: Path) -> None:
    write_domain(new_domain(), tmp_path, processes=1)
    (tmp_path / 'reid_raw.json').write_text('[]')
    with pytest.raises(InputError, match=r'reid_raw\.json: is not what was drawn'):
        write_domain(new_domain(), tmp_path, processes=1)
    assert (tmp_path / 'reid_raw.json').read_text() == '[]'


def test_another_generator_needs_redraw(
    street: dict[str, bytes], tmp_path: Path
) -> None:
    write_domain(new_domain(), tmp_path, processes=1)
    change_description(tmp_path, generator='0.9')
    (tmp_path / 'imgs' / 'cam_a' / '0009_9.jpg').write_bytes(b'of the old version')
    (tmp_path / 'notes.txt').write_text('mine')
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r'by generator 0\.9, this is 1\.\d.*--redraw'):
        write_domain(new_domain(), tmp_path, processes=1)
    assert contents(tmp_path) == before
    write_domain(new_domain(), tmp_path, processes=1, redraw=True)
    assert contents(tmp_path) == {**street, 'notes.txt': b'mine'}


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (new_domain('street', world=3), 'world 0 instead of world 3'),
        (new_domain('mall'), 'domain street.* instead of domain mall'),
        (
            SynthDomain('street', 0, SIZES._replace(test=3)),
            'sizes train 3/val 2/test 2/images 2 instead of .*test 3',
        ),
    ],
)
def test_another_drawing_needs_redraw(
    other: SynthDomain, message: str, tmp_path: Path
) -> None:
    write_domain(new_domain(), tmp_path, processes=1)
    with pytest.raises(InputError, match=message):
        write_domain(other, tmp_path, processes=1)
    write_domain(other, tmp_path, processes=1, redraw=True)
    assert is_complete(other, tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert files == sorted([ANNOTATION_FILES[other.dataset_type], 'synthpedes.json'])


@pytest.mark.parametrize('redraw', [False, True])
@pytest.mark.parametrize('name', ['imgs/mine.jpg', '.hidden'])
def test_other_content_is_not_touched(name: str, redraw: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'mine')
    with pytest.raises(InputError, match=f'such as {name.split("/")[0]}'):
        write_domain(new_domain(), tmp_path, processes=1, redraw=redraw)
    assert contents(tmp_path) == {name: b'mine'}


@pytest.mark.parametrize('text', ['{', '[]', '{}', '{"a": "\udcff"}'])
def test_a_strange_description_is_not_touched(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'synthpedes.json'
    path.write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(InputError, match='is no description of a drawing'):
        write_domain(new_domain(), tmp_path, processes=1, redraw=True)
    assert path.read_bytes() == text.encode(errors='surrogateescape')


def test_a_kill_before_the_first_image_is_no_other_content(
    street: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / '.synthpedes.json.partial').write_bytes(b'{')
    assert contents(write_domain(new_domain(), tmp_path, processes=1)) == street


@pytest.mark.parametrize('below', ['', 'street'])
def test_a_file_in_the_place_of_the_folder(below: str, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(InputError, match='must be a folder'):
        write_domain(new_domain(), tmp_path / 'file' / below, processes=1)
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(
    ('code', 'message'),
    [
        (errno.ENOSPC, r'no space left.* needs about \d+ MB.*same command continues'),
        (errno.EACCES, 'can be read and written .*Permission denied'),
    ],
)
def test_a_disk_that_takes_no_more(
    code: int,
    message: str,
    processes: int,
    street: dict[str, bytes],
    tmp_path: Path,
) -> None:
    domain = failing_with(OSError(code, os.strerror(code)))
    with pytest.raises(InputError, match=message):
        write_domain(domain, tmp_path, processes)
    assert contents(write_domain(new_domain(), tmp_path, processes)) == street


def test_processes_are_counted_from_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='at least 1, got 0'):
        write_domain(new_domain(), tmp_path, processes=0)
