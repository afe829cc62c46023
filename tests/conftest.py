"""What the tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gckd_mm  # noqa: F401 - mends the stack before a test imports a part of it
from tests.miniature import write_all


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--store',
        default=str(Path(__file__).parents[2] / 'shared' / 'data' / 'store'),
        help='folder of the real pictures in the schema of RSTPReid',
    )


@pytest.fixture(scope='session')
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three miniature datasets in the official schemas."""
    return write_all(tmp_path_factory.mktemp('data') / 'miniature')


@pytest.fixture(scope='session')
def store(request: pytest.FixtureRequest) -> Path:
    """The folder of the real pictures of the 'store' set."""
    path = Path(request.config.getoption('--store'))
    if not path.is_dir():
        pytest.skip(f'the store pictures are not at {path} (see --store)')
    return path


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
