"""Galleries of which a file is damaged, and the commands that open them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.cli import search as cli
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import (
    damage_bytes,
    damage_value,
    odd_files,
    odd_texts,
    odd_values,
    rng_of,
)
from tests.fuzz.judge import Judge, run_command

Record = Callable[[str, object], None]
MODEL = 'gckd_mm://synthclip_tiny_web'
QUERY = 'a man in a red coat'
NUM_CROPS = 24


@pytest.fixture(scope='module', params=['exact', 'hnsw'])
def good(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with ``crops`` and a ``gallery`` of them, which has fields."""
    folder = tmp_path_factory.mktemp('good')
    crops = folder / 'crops'
    crops.mkdir()
    fields = {}
    for n in range(NUM_CROPS):
        pixels = rng_of(0, 'crop', n).integers(0, 256, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(crops / f'{n}.png')
        fields[f'{n}.png'] = {'camera': str(n % 3), 'time': 1e9 + n}
    inferencer = PersonSearchInferencer(MODEL, device='cpu')
    with inferencer.new_gallery(folder / 'gallery', crops, request.param) as gallery:
        update(gallery, inferencer, find_images(crops, fields))
    return folder


class Shell:
    """Runs commands, and returns what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Any:
        """Return the JSON that a command prints."""
        self.capsys.readouterr()
        run_command(cli.main, *arguments, '--json')
        return json.loads(self.capsys.readouterr().out)


def _matches(found: Any) -> list[tuple[str, float, Any]]:
    (result,) = found['results']
    return [(m['path'], round(m['score'], 4), m['fields']) for m in result['matches']]


def _copy(good: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good / 'gallery', place)
    return place


def _damage_one(folder: Path, case: int, rng: np.random.Generator) -> str:
    """Damage one of the files of a gallery; return how."""
    names = sorted(
        name for name in os.listdir(folder) if not name.endswith(('.lock', '.owner'))
    )
    file = folder / names[case % len(names)]
    if file.suffix == '.json' and case % 2:
        settings = damage_value(json.loads(file.read_text()), rng, odd_values())
        file.write_text(json.dumps(settings))
        return f'{file.name} structure'
    how, data = damage_bytes(file.read_bytes(), rng)
    file.write_bytes(data)
    return f'{file.name} {how}'


def test_damaged_files(
    good: Path,
    tmp_path: Path,
    cases: Cases,
    capsys: pytest.CaptureFixture[str],
    record_property: Record,
) -> None:
    """A query is refused or finds what it found before; and so after `index`."""
    shell, judge = Shell(capsys), Judge()
    query = [QUERY, '--top-k', '30']
    expected = _matches(shell('query', str(good / 'gallery'), *query))
    assert len(expected) == NUM_CROPS

    def problem(found: Any) -> str | None:
        return None if _matches(found) == expected else 'it finds something else'

    for case, rng in cases(48, 'gallery'):
        folder = str(_copy(good, tmp_path / 'gallery'))
        name = f'{_damage_one(Path(folder), case, rng)} {cases.label(case)}'
        judge.case(f'query {name}', partial(shell, 'query', folder, *query), problem)
        judge.case(f'verify {name}', partial(shell, 'info', folder, '--verify'))
        index = ['index', str(good / 'crops'), '--gallery', folder]
        judge.case(f'index {name}', partial(shell, *index))
        judge.case(
            f'query after index {name}',
            partial(shell, 'query', folder, *query),
            problem,
        )
    judge.finish(record_property)


def test_files_that_are_something_else(
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Record,
) -> None:
    shell, judge = Shell(capsys), Judge()
    others = tmp_path / 'others'
    others.mkdir()
    names = [name for name in os.listdir(good / 'gallery') if '.lock' not in name]
    for name in names:
        for what, data in odd_texts(b'{}').items():
            folder = _copy(good, tmp_path / 'gallery')
            (folder / name).write_bytes(data)
            _expect_no_wrong_answer(judge, shell, f'{name} {what}', folder)
        for what, path in odd_files(others, f'.{name}').items():
            folder = _copy(good, tmp_path / 'gallery')
            (folder / name).unlink()
            if path.exists() or path.is_symlink():
                (folder / name).symlink_to(path)
            _expect_no_wrong_answer(judge, shell, f'{name} {what}', folder)
    judge.finish(record_property)


def _expect_no_wrong_answer(
    judge: Judge, shell: Shell, name: str, folder: Path
) -> None:
    def problem(found: Any) -> str | None:
        matches = _matches(found)
        return None if len(matches) == 5 else f'{len(matches)} matches'

    ask: Sequence[str] = ['query', str(folder), QUERY, '--top-k', '5']
    judge.case(name, partial(shell, *ask), problem)


def test_vectors_that_are_no_embeddings(good: Path, tmp_path: Path) -> None:
    """What `problem` compares would be noticed: scores do depend on the vectors."""
    with Gallery.open(good / 'gallery') as gallery:
        feats = gallery.engine.feats_of(['0.png', '1.png'])
    assert np.abs(feats[0] - feats[1]).max() > 1e-3
