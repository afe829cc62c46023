"""Odd words, conditions, lists and fields given to gckd-search."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gckd_mm.search.cli import search as cli
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import (
    Rng,
    damage_bytes,
    damage_value,
    odd_files,
    odd_texts,
    odd_values,
)
from tests.fuzz.judge import Judge, run_command
from tests.search.web.conftest import coloured  # noqa: F401 - the gallery that is asked

Record = Callable[[str, object], None]
TEXTS = (
    'a man in red',
    '',
    ' ',
    '全部',
    'xqzt vbnm',
    '\udcff',
    'a\x00b',
    '-a',
    '--',
    'x' * 5000,
    'a man or a woman',
    '🙂',
    '\u202e',
)
CONDITIONS = (
    'camera=3',
    'camra=3',
    'camera',
    '=',
    'camera=',
    'camera==3',
    'camera=3 or camera=4',
    'time>=2026-01-01',
    'time=never',
    'time=1e300',
    'time=-1e300',
    'time=nan',
    'camera=\udcff',
    'camera="',
    f'camera={"9" * 5000}',
    "camera='; DROP TABLE items; --",
    'camera>\x00',
    'note=true',
)
OPTIONS = (
    ['--top-k', '0'],
    ['--top-k', '-1'],
    ['--top-k', '3'],
    ['--top-k', '1000000'],
    ['--exact'],
    ['--json'],
    ['--without', 'a hat'],
    ['--rerank', 'k_reciprocal'],
)


def _run(*arguments: str) -> int:
    return run_command(cli.main, *arguments)


def _query(gallery: str, rng: Rng) -> list[str]:
    arguments = [gallery]
    for texts, most in ((TEXTS, 3), (CONDITIONS, 2)):
        for _ in range(int(rng.integers(0, most))):
            text = texts[int(rng.integers(len(texts)))]
            arguments += [text] if texts is TEXTS else ['--where', text]
    arguments += OPTIONS[int(rng.integers(len(OPTIONS)))]
    return ['query', *arguments]


def test_queries(
    coloured: Path,  # noqa: F811
    cases: Cases,
    capsys: pytest.CaptureFixture[str],
    record_property: Record,
) -> None:
    judge = Judge()
    for case, rng in cases(120, 'query'):
        arguments = _query(str(coloured / 'gallery'), rng)
        name = f'{ascii(arguments)[:300]} {cases.label(case)}'
        capsys.readouterr()
        outcome = judge.case(name, partial(_run, *arguments))
        error = capsys.readouterr().err
        assert outcome != 'refused' or error.strip(), name
        assert 'Traceback' not in error, name
    judge.finish(record_property)


def test_fields_and_lists(
    coloured: Path,  # noqa: F811
    tmp_path: Path,
    cases: Cases,
    record_property: Record,
) -> None:
    """Fields are read or refused; an item never gets what cannot be shown again."""
    crops, gallery = str(coloured / 'crops'), str(tmp_path / 'gallery')
    index = ['index', crops, '--gallery', gallery, '--checkpoint']
    assert cli.main([*index, 'gckd_mm://synthclip_tiny_web']) == 0
    good = [
        {'path': f'red{n}.png', 'camera': str(n), 'time': '2026-11-22T08:30:00', 'n': n}
        for n in range(4)
    ]
    csv = 'path,camera,time,n\n' + ''.join(
        ','.join(str(value) for value in row.values()) + '\n' for row in good
    )
    judge, odd = Judge(), [*odd_values(), '9' * 5000, '1e300', 'Infinity']
    for case, rng in cases(60, 'fields'):
        if case % 2:
            rows = damage_value(good, rng, odd)
            rows = rows if isinstance(rows, list) else [rows]
            suffix, text = '.jsonl', '\n'.join(map(json.dumps, rows)).encode()
        else:
            suffix, (_, text) = '.csv', damage_bytes(csv.encode(), rng)
        _try_fields(judge, tmp_path, index, suffix, text, cases.label(case))
    for suffix, valid in (('.jsonl', json.dumps(good[0])), ('.csv', csv)):
        for name, text in odd_texts(valid.encode()).items():
            _try_fields(judge, tmp_path, index, suffix, text, f'{name}{suffix}')
        for option in ('--fields', '--list'):
            folder = tmp_path / f'{option}{suffix}'
            folder.mkdir()
            for name, path in odd_files(folder, suffix).items():
                arguments = [*index[:-1], option, str(path)]
                judge.case(f'{option} {name}', partial(_run, *arguments))
    judge.finish(record_property)


def _try_fields(
    judge: Judge, folder: Path, index: list[str], suffix: str, text: bytes, name: str
) -> None:
    file = folder / f'fields{suffix}'
    file.write_bytes(text)
    gallery = index[index.index('--gallery') + 1]
    where = f'{name} {text[:200]!r}'
    update = [*index[:-1], '--fields', str(file)]
    judge.case(f'index {where}', partial(_run, *update))
    judge.case(f'query {where}', partial(_run, 'query', gallery, 'a man', '--json'))
