"""A work dir without a usable `last_checkpoint` is not taken for an empty one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gckd_mm.checkpoint import find_last_checkpoint
from gckd_mm.errors import CheckpointError
from gckd_mm.work_dir import (
    BEGUN,
    checkpoint_to_resume,
    checkpoints_in,
    other_checkpoints,
)


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    folder = tmp_path / 'work'
    folder.mkdir()
    for age, name in enumerate(('best_mall_R1_iter_2.pth', 'iter_4.pth', 'source.pth')):
        (folder / name).write_bytes(b'')
        os.utime(folder / name, (1000 - age, 1000 - age))
    (folder / '.iter_6.pth.partial').write_bytes(b'')
    (folder / '.hidden.pth').write_bytes(b'')
    (folder / 'folder.pth').mkdir()
    return folder


FLAWS: dict[str, Callable[[Path], object]] = {
    'nothing there': lambda p: p.write_text('work_dirs/x/iter_8.pth'),
    'empty': lambda p: p.write_text(''),
    'blank': lambda p: p.write_text(' \n\n'),
    'garbage': lambda p: p.write_text('\x01\x02 garbage'),
    'not UTF-8': lambda p: p.write_bytes(b'iter_4.pth\xff\xfe'),
    'UTF-16': lambda p: p.write_bytes('iter_4.pth'.encode('utf-16')),
    'NUL': lambda p: p.write_bytes(b'iter_4.pth\0'),
    'folder': lambda p: p.mkdir(),
    'names a folder': lambda p: p.write_text('folder.pth'),
    'names the work dir': lambda p: p.write_text('.'),
    'ends with a slash': lambda p: p.write_text('iter_4.pth/'),
    'FIFO': lambda p: os.mkfifo(p),
    'device': lambda p: p.symlink_to('/dev/zero'),
    'link to nothing': lambda p: p.symlink_to('nowhere'),
    'link to itself': lambda p: p.symlink_to(p),
    'outside': lambda p: p.write_text('/elsewhere/of/another/run.pth'),
    'trailing junk': lambda p: p.write_text('iter_4.pth and more'),
    'second line': lambda p: p.write_text('iter_4.pth\niter_5.pth'),
    'very long': lambda p: p.write_text('x' * 5000),
    'huge': lambda p: p.write_text('x' * 2**20),
}


@pytest.mark.parametrize('flaw', FLAWS)
def test_a_pointer_that_names_no_checkpoint_is_an_error(
    work_dir: Path, flaw: str
) -> None:
    FLAWS[flaw](work_dir / 'last_checkpoint')

    assert find_last_checkpoint(work_dir) is None
    with pytest.raises(CheckpointError) as error:
        checkpoint_to_resume(work_dir)

    message = str(error.value)
    newest_first = ('best_mall_R1_iter_2.pth', 'iter_4.pth', 'source.pth')
    assert ', '.join(str(work_dir / name) for name in newest_first) in message
    assert '--resume PATH' in message
    assert 'hidden' not in message
    assert '\n' not in message
    assert len(message) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_an_unreadable_pointer(work_dir: Path) -> None:
    (work_dir / 'last_checkpoint').write_text('iter_4.pth')
    (work_dir / 'last_checkpoint').chmod(0)
    with pytest.raises(CheckpointError, match='cannot be read'):
        checkpoint_to_resume(work_dir)


@pytest.mark.parametrize(
    'content', ['iter_4.pth', 'iter_4.pth\n', '/moved/from/here/iter_4.pth']
)
def test_a_pointer_names_a_file_of_its_own_folder(work_dir: Path, content: str) -> None:
    (work_dir / 'last_checkpoint').write_text(content)
    assert checkpoint_to_resume(work_dir) == str(work_dir / 'iter_4.pth')
    assert find_last_checkpoint(work_dir) == str(work_dir / 'iter_4.pth')


def test_checkpoints_without_a_pointer_are_an_error(work_dir: Path) -> None:
    with pytest.raises(CheckpointError, match=r'last_checkpoint is missing.*iter_4'):
        checkpoint_to_resume(work_dir)
    assert find_last_checkpoint(work_dir) is None


def test_a_pointer_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').write_text('iter_4.pth')
    with pytest.raises(CheckpointError, match=r'no checkpoint .* lies beside it'):
        checkpoint_to_resume(tmp_path)


def test_only_an_empty_work_dir_starts_from_the_beginning(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path / 'nowhere') is None
    assert checkpoint_to_resume(tmp_path) is None
    (tmp_path / 'log.txt').write_text('')
    assert checkpoint_to_resume(tmp_path) is None


def test_a_run_without_a_checkpoint_of_its_own_yet_starts_again(work_dir: Path) -> None:
    (work_dir / BEGUN).touch()
    assert checkpoint_to_resume(work_dir) is None
    (work_dir / 'last_checkpoint').write_text('')  # which that run does not write
    with pytest.raises(CheckpointError):
        checkpoint_to_resume(work_dir)


def test_of_files_of_the_same_age_the_later_iteration_is_newer(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        path = tmp_path / f'iter_{number}.pth'
        path.write_bytes(b'')
        os.utime(path, (5, 5))
    names = [os.path.basename(path) for path in checkpoints_in(tmp_path)]
    assert names == ['iter_100.pth', 'iter_10.pth', 'iter_9.pth']
    assert 'iter_9.pth' not in other_checkpoints(tmp_path / 'iter_9.pth')
