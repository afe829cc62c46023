"""Names of version 0.1, and those that README and docs print."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from gckd_mm.moved_modules import MOVED, current_name

ROOT = Path(__file__).parents[1]

#: what README and docs of version 0.1 printed
OLD_NAMES = (
    'gckd_mm.apis.PersonSearchInferencer',
    'gckd_mm.apis.Query',
    'gckd_mm.checkpoint.read_checkpoint',
    'gckd_mm.datasets.synthpedes.version.VERSION',
    'gckd_mm.datasets.synthpedes.write_domain',
    'gckd_mm.evaluation.gallery_reranking.build_reranker',
    'gckd_mm.evaluation.rank_metrics',
    'gckd_mm.gallery.Gallery',
    'gckd_mm.gallery.files.find_images',
    'gckd_mm.gallery.indexing.update',
    'gckd_mm.gallery.parse_condition',
    'gckd_mm.models.heads.uda.AdaptationHead',
    'gckd_mm.models.heads.uda.adaptation_head.AdaptationHead',
    'gckd_mm.registry.MODELS',
)


def _get(name: str) -> object:
    module, _, attribute = name.rpartition('.')
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize('name', OLD_NAMES)
def test_a_public_name_of_version_0_1_is_the_same_object(name: str) -> None:
    module, _, attribute = name.rpartition('.')
    current = f'{current_name(module) or module}.{attribute}'

    assert _get(name) is _get(current)


def _printed() -> set[str]:
    """Return every ``from gckd_mm… import NAME`` and ``gckd_mm.….NAME`` of the docs."""
    names = set()
    for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
        text = page.read_text()
        for module, given in re.findall(
            r'^from (gckd_mm[\w.]*) import ([\w, ]+)$', text, re.MULTILINE
        ):
            names |= {f'{module}.{name.strip()}' for name in given.split(',')}
        names |= set(re.findall(r'\b(gckd_mm(?:\.[a-z_]+)+\.[A-Za-z_]+)', text))
    return names


@pytest.mark.parametrize('name', sorted(_printed()))
def test_what_the_docs_print_can_be_imported(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError:
        assert _get(name) is not None


def test_functions_that_moved_beside_their_part_are_still_there() -> None:
    functional = import_module('gckd_mm.models.functional')

    for name, module in functional._BESIDE.items():
        part = import_module(f'gckd_mm.models.{module}')
        assert getattr(functional, name) is getattr(part, name)
    with pytest.raises(AttributeError, match='no attribute'):
        functional.nothing_here  # noqa: B018


@pytest.mark.parametrize('name', sorted(MOVED))
def test_an_old_module_is_the_module_itself(name: str) -> None:
    module = import_module(name)

    assert module is import_module(MOVED[name])
    assert module.__spec__ is not None
    assert module.__spec__.name == MOVED[name]


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module('gckd_mm.gallery.nothing_here')


def test_an_old_module_runs_as_a_program() -> None:
    command = [sys.executable, '-m', 'gckd_mm.cli.search', '--help']
    shown = subprocess.run(command, capture_output=True, text=True)

    assert shown.returncode == 0, shown.stderr
    assert 'index' in shown.stdout
