"""Words and options in any order."""

from __future__ import annotations

import argparse
from itertools import permutations

import pytest

from gckd_mm.search.cli.any_order_parser import AnyOrderParser
from gckd_mm.search.cli.parser import make_parser


def parse(*args: str) -> argparse.Namespace:
    return make_parser().parse_args(args)


def test_any_order_gives_the_same() -> None:
    parts = [['g'], ['--top-k', '2'], ['a man'], ['--json'], ['--where=camera=3']]
    for order in permutations(parts):
        if order.index(['g']) > order.index(['a man']):
            continue
        options = parse('query', *(arg for part in order for arg in part))
        assert (options.gallery, options.text) == ('g', ['a man'])
        assert (options.top_k, options.json, options.where) == (2, True, ['camera=3'])


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['g', '--', '-a', '--top-k'], ['-a', '--top-k']),
        (['--json', '--', 'g', '-a'], ['-a']),
        (['g', '-5', '- a man', '-a man', '-'], ['-5', '- a man', '-a man', '-']),
        (['g', '', 'a'], ['', 'a']),
        (['g', '--top', '3', 'a'], ['a']),
        (['g', '--without', '', 'a'], ['a']),
        (['g', '--without', 'g', 'a'], ['a']),
    ],
)
def test_texts_with_dashes(args: list[str], text: list[str]) -> None:
    options = parse('query', *args)
    assert (options.gallery, options.text) == ('g', text)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['query', 'g', '-a'], 'a text that begins with a dash comes after --'),
        (['query', 'g', 'a', '--top-k'], 'expected one argument'),
        (['query', 'g', 'a', '--top-k', '--json'], 'expected one argument'),
        (['query', 'g', 'a', '--top-k', 'x'], 'invalid int value'),
        (['query', '--json'], 'required: gallery'),
        (['query', 'g', '--json', '--open', 'a'], 'not allowed with'),
        (['info', 'g', '--json', 'h'], 'unrecognized arguments: h'),
        (['index', 'c', '--json'], 'required: --gallery'),
    ],
)
def test_what_is_wrong_is_said(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(*args)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_the_other_commands() -> None:
    options = parse('index', '--json', '--gallery', 'g', 'crops')
    assert (options.folder, options.gallery, options.json) == ('crops', 'g', True)
    assert parse('info', '--json', 'g').gallery == 'g'
    options = parse('serve', '--port', '0', 'g', '--open')
    assert (options.gallery, options.port, options.open) == ('g', 0, True)


def test_it_parses_what_is_given_and_else_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = AnyOrderParser()
    parser.add_argument('words', nargs='*')
    parser.add_argument('-n', type=int)
    monkeypatch.setattr('sys.argv', ['x', 'a', '-n', '3', 'b'])
    options = parser.parse_args()
    assert (options.words, options.n) == (['a', 'b'], 3)
