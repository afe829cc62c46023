"""Milvus for the tests of galleries: Lite, or a server."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from gckd_mm.search.gallery.milvus_connection import MilvusConnection, pymilvus


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--milvus',
        metavar='URI',
        help='a server to test with, such as http://localhost:19530, not Milvus Lite',
    )


@pytest.fixture(scope='session')
def milvus_uri(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a Milvus; each test makes a collection of its own there."""
    # pytest knows the option only where this folder is named on its command line
    server = request.config.getoption('--milvus', default=None)
    if importlib.util.find_spec('pymilvus') is None:
        pytest.skip('pymilvus is not installed')
    pymilvus()  # imported as the package does it, which leaves logs as they are
    if not server:
        pytest.importorskip('milvus_lite')
    uri = server or str(tmp_path_factory.mktemp('milvus') / 'gallery.db')
    # while one is connected, Milvus Lite need not start for each test
    connection = MilvusConnection(uri)
    yield uri
    connection.close()
