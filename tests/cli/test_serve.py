"""What ``gckd-search serve`` refuses; the page itself has tests of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from gckd_mm.cli import search as cli

pytest.importorskip('gradio')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name a gallery, or --demo'),
        (['{tmp}', '--demo'], 'name a gallery, or --demo'),
        (['{tmp}'], 'is no gallery'),
        (['{tmp}', '--host', '0.0.0.0'], 'lets other machines in: name a --password'),
        (['{tmp}', '--password-file', '{tmp}/none'], 'cannot be read'),
        (['{tmp}', '--password-file', '{tmp}/short'], 'at least 8 characters'),
        (['{tmp}', '--password-file', '{tmp}/empty'], 'at least 8 characters'),
    ],
)
def test_bad_input_is_a_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'short').write_text('1234567\n')
    (tmp_path / 'empty').write_text('')
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert cli.main(['serve', *given]) == 2
    assert message in capsys.readouterr().err
