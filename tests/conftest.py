"""What the tests share."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
import torch

import gckd_mm  # noqa: F401 - mends the stack before a test imports a part of it
from tests.fuzz.judge import OUTCOMES
from tests.miniature import write_all
from tests.training import in_process, small_config, train


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--store',
        default=str(Path(__file__).parents[2] / 'shared' / 'data' / 'store'),
        help='folder of the real pictures in the schema of RSTPReid',
    )
    parser.addoption('--fuzz-seed', type=int, default=0, help='of the damaged inputs')
    parser.addoption(
        '--fuzz-rounds',
        type=float,
        default=1.0,
        help='how many times the usual number of damaged inputs (default: 1)',
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the cases of tests/fuzz ended."""
    total: Counter[str] = Counter()
    for name in ('passed', 'failed'):
        for report in terminalreporter.getreports(name):
            for key, counts in report.user_properties:
                if key == 'fuzz':
                    total.update(counts)
    if total:
        cases = ', '.join(f'{total[name]} {name}' for name in OUTCOMES)
        terminalreporter.write_line(f'fuzz: {total.total()} damaged inputs: {cases}')


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
    # Two threads on small tensors wait for each other more than they work.
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _open_log_files() -> None:
    """Take the log files of earlier runs away that something has closed.

    mmengine's logger is the process's, and it writes to their streams, which are None:
    whatever calls ``logging.config.dictConfig`` closes all handlers there are.
    """
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    for handler in [x for x in logger.handlers if isinstance(x, logging.FileHandler)]:
        if handler.stream is None:
            logger.removeHandler(handler)


def _train(data: Path, work_dir: Path) -> None:
    train(small_config(data, work_dir, train_cfg__max_iters=4))


@pytest.fixture(scope='session')
def trained(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a small training run."""
    work_dir = tmp_path_factory.mktemp('trained')
    assert in_process(_train, miniature, work_dir) == 0
    return work_dir
