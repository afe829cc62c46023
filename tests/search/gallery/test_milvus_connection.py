"""Milvus that is there, and Milvus that is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import milvus_connection
from gckd_mm.search.gallery.milvus_connection import MilvusConnection
from tests.search.gallery.engines import MilvusPlace, fill, items_of

CLOSED = 'http://127.0.0.1:1'

HOLDS = """
import sys, time
from milvus_lite import MilvusLite
held = MilvusLite(sys.argv[1])
print('held', flush=True)
time.sleep(600)
"""


def test_a_file_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip('milvus_lite')
    file = str(tmp_path / 'gallery.db')
    arguments = [sys.executable, '-c', HOLDS, file]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == 'held\n'
            with pytest.raises(InputError, match='is in use by another process'):
                MilvusConnection(file)
        finally:
            other.kill()
    assert not caplog.records
    MilvusConnection(file).close()


def test_the_last_connection_to_a_file_lets_go_of_it(tmp_path: Path) -> None:
    pytest.importorskip('milvus_lite')
    file = str(tmp_path / 'gallery.db')
    engine = MilvusPlace(file, 'one').open(new=True)
    fill(engine, 10)
    MilvusPlace(file, 'one').open().close()
    assert len(engine) == 10
    engine.close()
    os.rename(file, tmp_path / 'moved.db')
    moved = MilvusPlace(str(tmp_path / 'moved.db'), 'one').open()
    assert sorted(moved.items()) == items_of(10)
    moved.close()


IMPORTS = """
import logging, sys
file = logging.FileHandler(sys.argv[1], 'w')  # as mmengine's
logging.getLogger('mmengine').addHandler(file)
from gckd_mm.search.gallery.milvus_connection import pymilvus
pymilvus()
logging.getLogger('mmengine').warning('still written')
"""


def test_a_log_file_stays_open(tmp_path: Path) -> None:
    pytest.importorskip('pymilvus')
    log = tmp_path / 'run.log'
    arguments = [sys.executable, '-c', IMPORTS, str(log)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert log.read_text() == 'still written\n'
    assert done.stderr == ''


def test_nothing_listens() -> None:
    pytest.importorskip('pymilvus')
    began = time.perf_counter()
    with pytest.raises(InputError, match=rf'^{CLOSED}: no Milvus answers .* start one'):
        MilvusConnection(CLOSED)
    assert time.perf_counter() - began < 5


def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pymilvus')
    monkeypatch.setattr(milvus_connection, '_CONNECT_SECONDS', 0.5)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        uri = f'http://127.0.0.1:{silent.getsockname()[1]}'
        with pytest.raises(InputError, match=f'^{uri}: no Milvus answers'):
            MilvusConnection(uri)


def test_a_token_that_is_refused() -> None:
    pytest.importorskip('pymilvus')
    import grpc
    from pymilvus.grpc_gen import milvus_pb2_grpc

    class Refuses(milvus_pb2_grpc.MilvusServiceServicer):
        def Connect(self, request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, 'auth check failure')

    server = grpc.server(ThreadPoolExecutor(1))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Refuses(), server)
    port = server.add_insecure_port('127.0.0.1:0')
    server.start()
    with pytest.raises(InputError, match=r'refuses the token: it is a key') as error:
        MilvusConnection(f'http://127.0.0.1:{port}', 'someone:secret')
    server.stop(None)
    assert 'secret' not in str(error.value)


@pytest.mark.parametrize(
    'uri',
    ['localhost:19530', 'ftp://host', 'http://', 'http://host:x', '/no/such/x.db'],
)
def test_what_is_no_address(uri: str) -> None:
    pytest.importorskip('milvus_lite')
    with pytest.raises(InputError, match=r'such as http://localhost:19530'):
        MilvusConnection(uri)


def test_a_password_is_no_part_of_an_address() -> None:
    pytest.importorskip('pymilvus')
    with pytest.raises(InputError, match=r"give the token 'user:password'") as error:
        MilvusConnection('https://someone:secret@host:19530')
    assert 'secret' not in str(error.value)


def test_a_file_of_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip('milvus_lite')
    (tmp_path / 'other.db').write_text('SQLite, perhaps')
    with pytest.raises(InputError, match=r'other\.db: cannot be opened \(.*exists'):
        MilvusConnection(str(tmp_path / 'other.db'))
    assert not caplog.records


@pytest.mark.parametrize(
    ('missing', 'uri'),
    [('pymilvus', CLOSED), ('milvus_lite.server_manager', 'gallery.db')],
)
def test_without_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, uri: str
) -> None:
    pytest.importorskip('pymilvus')
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"pip install 'gckd-mm\[milvus\]'"):
        MilvusConnection(uri)
