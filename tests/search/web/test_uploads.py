"""The folder of uploads: whose it is, what is in it, when it goes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gckd_mm.errors import InputError
from tests.training import ROOT

pytest.importorskip('gradio')
from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.uploads import Uploads

_SERVER = """
import sys, time
from pathlib import Path
from gckd_mm.search.web.uploads import Uploads
uploads = Uploads(Path(sys.argv[1]))
print(uploads.add(b'an image', '.png', None), flush=True)
time.sleep(60)
"""


def start(base: Path) -> subprocess.Popen[str]:
    """Start another server, which prints the path of an upload."""
    return subprocess.Popen(
        [sys.executable, '-c', _SERVER, str(base)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    base = tmp_path / 'base'
    base.mkdir(mode=0o755)
    uploads = Uploads(base)
    path = Path(uploads.add(b'an image', '.png', None))
    assert path.parent == uploads.folder
    assert [mode(x) for x in (base, uploads.folder, path)] == [0o700, 0o700, 0o600]
    uploads.close()
    assert sorted(os.listdir(base)) == ['start.lock', 'start.lock.owner']


def test_a_base_that_is_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'file').touch()
    for name in ('link', 'file'):
        with pytest.raises(InputError, match='must be a folder of this user'):
            Uploads(tmp_path / name).open()
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    with pytest.raises(InputError, match='must be a folder of this user'):
        Uploads(tmp_path / 'elsewhere').open()
    monkeypatch.undo()
    with pytest.raises(InputError, match='set TMPDIR to a folder that can be'):
        Uploads(tmp_path / 'file' / 'base').open()
    assert os.listdir(tmp_path / 'elsewhere') == []


def test_a_path_is_what_was_given_and_nothing_else(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = uploads.add(b'an image', '.png', 'a browser')
    uploads.claim(path, 'a browser', 'a session')
    (uploads.folder / 'link.png').symlink_to(path)
    for other in (
        *(
            f'{path}/',
            f'/{path}',
            f'{path}\0',
            os.path.basename(path),
            '',
            path.upper(),
        ),
        *(f'{uploads.folder}/./{os.path.basename(path)}', str(uploads.folder)),
        str(uploads.folder / 'link.png'),
    ):
        with pytest.raises(RefusedError, match='was not uploaded here'):
            uploads.claim(other, 'a browser', 'a session')
        with pytest.raises(InputError, match='kept for 10 minutes'):
            uploads.read(other)
    for owner, session in ((None, 'a session'), ('b', 'a session'), ('a browser', 'b')):
        with pytest.raises(RefusedError, match='was not uploaded here'):
            uploads.claim(path, owner, session)
    assert uploads.read(path) == b'an image'
    uploads.close()


@pytest.mark.parametrize('kind', ['link', 'fifo', 'folder', 'large', 'gone'])
def test_a_file_that_was_replaced_is_not_read(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / 'secret'
    secret.write_text('a secret')
    uploads = Uploads(tmp_path / 'base')
    path = Path(uploads.add(b'an image', '.png', None))
    path.unlink()
    if kind == 'link':
        path.symlink_to(secret)
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'large':
        with path.open('wb') as file:
            file.truncate(10_000_001)
    with pytest.raises(InputError, match='kept for 10 minutes: choose it again'):
        uploads.read(str(path))
    uploads.close()


def test_they_are_kept_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr('gckd_mm.search.web.uploads.time.monotonic', lambda: now[0])
    uploads = Uploads(tmp_path)
    first = uploads.add(b'1', '', None)
    now[0] += 300
    second = uploads.add(b'2', '', None)
    now[0] += 300
    uploads.drop_old()
    assert not Path(first).exists()
    uploads.claim(first, None)  # whose page says what to do
    with pytest.raises(InputError, match='choose it again'):
        uploads.read(first)
    assert uploads.read(second) == b'2'
    uploads.close()


def test_nobody_pushes_out_the_uploads_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('gckd_mm.search.web.uploads._MAX_KEPT', 5)
    monkeypatch.setattr('gckd_mm.search.web.uploads._MAX_KEPT_BYTES', 1000)
    monkeypatch.setattr('gckd_mm.search.web.uploads._MAX_REMEMBERED', 7)
    uploads = Uploads(tmp_path)
    mine, nameless = uploads.add(b'1', '', 'me'), uploads.add(b'2', '', None)
    theirs = [uploads.add(b'3', '', 'other') for _ in range(50)]
    assert [os.path.exists(path) for path in theirs] == [False] * 45 + [True] * 5
    large = [uploads.add(b'4' * 400, '', 'other') for _ in range(3)]
    assert [os.path.exists(path) for path in large] == [False, True, True]
    assert not any(map(os.path.exists, theirs)), 'nor more bytes than a visitor may'
    nameless_too = [uploads.add(b'5', '', None) for _ in range(4)]
    with pytest.raises(RefusedError, match='uploaded too many images') as caught:
        uploads.add(b'5', '', None)  # whose they are is not known
    assert caught.value.status == 429
    for path, owner in ((mine, 'me'), *((x, None) for x in (nameless, *nameless_too))):
        uploads.claim(path, owner)
        assert uploads.read(path)
    uploads.close()


@pytest.mark.parametrize('limit', ['_MAX_ALL', '_MAX_ALL_BYTES'])
def test_many_visitors_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f'gckd_mm.search.web.uploads.{limit}', 8)
    uploads = Uploads(tmp_path)
    paths = [uploads.add(b'1', '', f'visitor {n}') for n in range(8)]
    with pytest.raises(
        RefusedError, match=r'no room for more images: .* 10 min'
    ) as caught:
        uploads.add(b'1', '', 'another visitor')
    assert caught.value.status == 507
    assert all(map(os.path.exists, paths))
    assert len(os.listdir(uploads.folder)) == 8
    uploads.close()


def test_servers_leave_each_other_alone_and_clean_up_after_the_dead(
    tmp_path: Path,
) -> None:
    base = tmp_path / 'base'
    living, dead = start(base), start(base)
    try:
        assert living.stdout is not None
        assert dead.stdout is not None
        kept, left = (Path(x.stdout.readline().strip()) for x in (living, dead))
        assert kept.exists()
        assert left.exists()
        dead.kill()
        dead.communicate()
        assert left.exists()
        uploads = Uploads(base)
        uploads.open()
        assert not left.parent.exists()
        assert kept.read_bytes() == b'an image'
        uploads.close()
        assert kept.exists()
    finally:
        living.kill()
        living.communicate()
    Uploads(base / '..' / 'base').open()
    assert not kept.parent.exists()


def test_what_is_no_folder_of_a_server_stays(tmp_path: Path) -> None:
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes.lock').touch()
    uploads = Uploads(tmp_path)
    uploads.open()
    uploads.close()
    assert (tmp_path / 'notes').is_dir()
    assert (tmp_path / 'notes.lock').exists()


@pytest.mark.parametrize('signal_', [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_leaves_nothing(
    coloured: Path, tmp_path: Path, signal_: int
) -> None:
    import httpx

    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'gckd_mm.search.cli.search', 'serve'),
            *(str(coloured / 'gallery'), '--port', '0'),
        ],
        cwd=ROOT,
        env={**os.environ, 'TMPDIR': str(tmp_path), 'OMP_NUM_THREADS': '1'},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = line.split(' at ')[1].split()[0]
        with httpx.Client(base_url=address, timeout=60) as client:
            files = {'files': ('a.png', b'an image')}
            for _ in range(600):
                try:
                    answer = client.post('/gradio_api/upload', files=files)
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)
            (path,) = answer.json()
            assert Path(path).read_bytes() == b'an image'
            assert Path(path).is_relative_to(tmp_path)
            # a page that listens does not keep it alive
            join = {'data': [], 'fn_index': 2, 'session_hash': 'abc'}
            client.post('/gradio_api/queue/join', json=join)
            process.send_signal(signal_)
            process.wait(20)
    finally:
        process.kill()
        process.communicate()
    (base,) = tmp_path.glob('gckd_mm-*')
    assert sorted(os.listdir(base)) == ['start.lock', 'start.lock.owner']
    assert os.listdir(tmp_path) == [base.name], 'nor does Gradio keep any'
