"""The command answers to --help without importing what it would run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gckd_mm.evaluation.gallery_reranking import METHODS
from gckd_mm.search.choices import MATCHING, RERANK_METHODS
from tests.training import ROOT

_HEAVY = ('torch', 'numpy', 'cv2', 'PIL', 'rich', 'mmengine', 'mmcv', 'mmpretrain')
_HELP = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0].endswith('.py'):
        runpy.run_path(sys.argv[0], run_name='__main__')
    else:
        runpy.run_module(sys.argv[0], run_name='__main__')
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    'arguments',
    [
        ['--help'],
        ['index', '--help'],
        ['query', '--help'],
        ['info', '--help'],
        ['serve', '--help'],
        ['query'],
        ['qery', 'a man'],
    ],
)
@pytest.mark.parametrize(
    'program',
    ['gckd_mm.search.cli.search', 'gckd_mm.cli.search', 'tools/search.py'],
)
def test_help_and_usage_import_nothing_heavy(
    program: str, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, '-c', _HELP, program, *arguments],
        cwd=ROOT,
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin'},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == (0 if '--help' in arguments else 2)
    assert 'usage: gckd-search' in done.stdout + done.stderr
    assert {*_HEAVY} & {*done.stderr.split()} == set()


def test_the_methods_to_choose_from_are_those_that_there_are() -> None:
    assert (MATCHING, *METHODS) == RERANK_METHODS
