"""What ``gckd-search serve`` refuses; the page itself has tests of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.cli import search as cli
from gckd_mm.search.cli import serve

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


def test_a_port_that_is_taken_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match='cannot be listened at'):
            serve._listening('127.0.0.1', port)
    with serve._listening('127.0.0.1', port) as listener:
        assert listener.getsockname()[1] == port
